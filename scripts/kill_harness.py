"""Kill training runs at random instants, resume them, and compare the final weights with an uninterrupted run's.

    python scripts/kill_harness.py --kills 1000 --results kills.jsonl

Each trial starts a new run and sends SIGKILL to all processes, or to one, whose peers must then leave by themselves.
The instant is drawn uniformly over the length of an uninterrupted run, or lies in a save, or in the publishing of the
results. A run that resumes is killed again with probability 0.6. In the end it is resumed with `--resume auto`, and the
SHA-256 of the weights is compared. A checkpoint is written after every second step. The processes are forked from one
that has imported torch; each runs the command line.

With `--results`, each trial becomes a line of JSON there, and a later call continues after the last one. The last line
of stdout is a JSON object about all trials; the exit code is 1 unless all agree.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.evidence import Evidence, add_options, small_mnist

COMMON: tuple[str, ...] = ("train", "--epochs", "2", "--checkpoint-every", "2")
COMMON += ("--threads", "1", "--cpu", "--quiet", "--resume", "auto")
KINDS = {
    "classic": ("--train-samples", "400", "--batch-size", "40"),
    "accurate": ("--recipe", "accurate", "--train-samples", "450", "--batch-size", "50"),
    "accumulation": ("--train-samples", "450", "--batch-size", "37", "--gradient-accumulation-steps", "2"),
    "validation": ("--train-samples", "400", "--batch-size", "50", "--validation-samples", "100", "--select", "best"),
}
"""About 20 steps and 10 checkpoints: with dropout; augmentation, batch normalisation, a schedule and averaged weights;
odd parts of a batch; the best epoch's weights."""
DATA = "mnist"
LEAVE_SECONDS = 10.0
"""The peers of a killed process must have left after this time."""
AGAIN = 0.6
"""The probability with which a run that resumes is killed, too."""
LAUNCHER_SECONDS = 4.0
"""The peers get SIGTERM after this time; launchers send it at once."""
PICTURE_SECONDS = 1.0
"""About the time that a run's pictures take, during which it is killed, too."""
AIMS = ("any", "any", "any", "save", "publish")
"""What is killed: a run at any instant, in a save, or while it publishes its results."""


@dataclass
class Run:
    """A training run in processes forked from this one; `codes` are the exit codes of those that have left."""

    pids: list[int]
    codes: dict[int, int] = field(default_factory=dict)

    def kill(self, generator: random.Random) -> str:
        """Send SIGKILL to all running processes, or to one."""
        here = [pid for pid in self.pids if pid not in self.codes]
        victims = here if generator.random() < 0.5 else [generator.choice(here)]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        return "all" if len(victims) == len(self.pids) else f"{len(victims)} of {len(self.pids)}"

    def signal(self, number: int) -> None:
        """Send a signal to all running processes."""
        for pid in set(self.pids) - set(self.codes):
            os.kill(pid, number)

    def wait(self, seconds: float) -> list[int] | None:
        """The exit codes, or None when a process is still running after `seconds`."""
        deadline = time.monotonic() + seconds
        while len(self.codes) < len(self.pids):
            for pid in set(self.pids) - set(self.codes):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    self.codes[pid] = os.waitstatus_to_exitcode(status)
            if len(self.codes) < len(self.pids):
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.002)
        return [self.codes[pid] for pid in self.pids]


@dataclass(frozen=True)
class Kind:
    """One kind of run."""

    recipe: str
    processes: int
    precision: str

    def __str__(self) -> str:
        return f"{self.recipe}, {self.processes} processes, {self.precision}"


def start(folder: Path, kind: Kind, draws: bool = True) -> Run:
    """Fork the processes of one run, with the environment that a launcher gives them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        *COMMON,
        "--dataset",
        f"idx:{folder.parent / DATA}",
        *KINDS[kind.recipe],
        "--mixed-precision",
        kind.precision,
        "--output-dir",
        str(folder),
    ]
    pids = []
    for rank in range(kind.processes):
        pid = os.fork()
        if pid == 0:
            if not draws:
                plots = sys.modules["mnist_accel.reports.plots"]
                vars(plots).update(training_history=_empty, sample_predictions=_empty)
            _become_rank(rank, kind.processes, port, arguments, folder.with_suffix(".log"))
        pids.append(pid)
    return Run(pids)


def _empty(*_: object) -> bytes:
    return b""


def _become_rank(rank: int, processes: int, port: int, arguments: list[str], log: Path) -> None:
    """Run the command line in a forked process and exit; never returns."""
    code = 99
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if processes > 1:
            os.environ |= {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
        from mnist_accel import cli

        sys.argv = ["mnist-accel", *arguments]
        cli.main()
    except SystemExit as leave:
        code = int(leave.code or 0)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weights of the finished run in `folder`."""
    return str(json.loads((folder / "mnist_cnn_model.json").read_text())["weights_sha256"])


def complete(folder: Path, kind: Kind) -> str:
    """Run or resume to the end, without the pictures, which take longer than the training; the hash of the weights."""
    codes = start(folder, kind, draws=False).wait(240)
    if codes != [0] * kind.processes:
        raise RuntimeError(f"exit codes {codes}: {folder.with_suffix('.log').read_text()[-2000:]}")
    return weights_hash(folder)


def kill(folder: Path, kind: Kind, length: float, generator: random.Random) -> dict[str, Any] | None:
    """Start or resume a run and kill it; where, and the seconds until the peers had left.

    None when the run has finished before it could be killed. Raises RuntimeError if the peers do not leave.
    """
    run, aim = start(folder, kind), generator.choice(AIMS)
    _wait_for(aim, folder, generator.uniform(0, length), run)
    if (folder / "mnist_cnn_model.json").exists() and run.wait(0) is not None:
        return None
    found: dict[str, Any] = {"where": _position(folder), "victims": run.kill(generator)}
    killed = time.monotonic()
    codes = run.wait(LAUNCHER_SECONDS)
    if codes is None:  # a process killed before it joined is unknown to its peers; a launcher would end them
        found["joining"] = True
        run.signal(signal.SIGTERM)
        codes = run.wait(LEAVE_SECONDS - LAUNCHER_SECONDS)
    if codes is None:
        run.signal(signal.SIGKILL)
        run.wait(10)
        raise RuntimeError(f"peers of a killed process were running after {LEAVE_SECONDS} s ({found})")
    return found | {"left_seconds": round(time.monotonic() - killed, 2)}


def _wait_for(aim: str, folder: Path, seconds: float, run: Run) -> None:
    """Wait so many seconds; then, until the run is saving or publishing, if that is the aim."""
    time.sleep(min(seconds, 1) if aim == "publish" else seconds)
    pattern = {"any": "", "save": "checkpoints/.*.tmp", "publish": ".*.tmp"}[aim]
    while pattern and not list(folder.glob(pattern)) and run.wait(0) is None:
        time.sleep(0.0005)


def _position(folder: Path) -> str:
    if list(folder.glob("checkpoints/.*.tmp")):
        return "in a save"
    if list(folder.glob(".*.tmp")):
        return "while publishing"
    return "between saves" if list(folder.glob("checkpoints/checkpoint-*")) else "without a checkpoint"


def trial(folder: Path, kind: Kind, reference: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    """Kill a run once or more often and resume it: the kills, and whether the weights are those of the reference."""
    kills: list[dict[str, Any]] = []
    length = reference["seconds"]
    while not kills:
        shutil.rmtree(folder, ignore_errors=True)
        kills += filter(None, [kill(folder, kind, length, generator)])
    while generator.random() < AGAIN and (again := kill(folder, kind, length, generator)) is not None:
        kills.append(again | {"while": "resuming"})
    return {"kind": str(kind), "kills": kills, "same": complete(folder, kind) == reference["weights_sha256"]}


def reference_of(kind: Kind, folder: Path, evidence: Evidence) -> dict[str, Any]:
    """The hash and the seconds of an uninterrupted run, which is made once."""
    for line in evidence.lines:
        if line.get("reference") == str(kind):
            return line
    started = time.monotonic()
    sha256 = complete(folder / "whole", kind)
    seconds = time.monotonic() - started + PICTURE_SECONDS
    evidence.add(reference=str(kind), weights_sha256=sha256, seconds=round(seconds, 2))
    shutil.rmtree(folder / "whole")
    return evidence.lines[-1]


def summary(evidence: Evidence) -> dict[str, Any]:
    """The figures of all trials."""
    trials = evidence.trials()
    kills = [kill for trial in trials for kill in trial["kills"]]
    return {
        "trials": len(trials),
        "same_weights": sum(trial["same"] for trial in trials),
        "kills": len(kills),
        "kinds": dict(Counter(trial["kind"].partition(",")[0] for trial in trials)),
        "processes": dict(Counter(trial["kind"].split(", ")[1] for trial in trials)),
        "where": dict(Counter(kill["where"] for kill in kills)),
        "while_resuming": sum("while" in kill for kill in kills),
        "while_joining": sum("joining" in kill for kill in kills),
        "longest_left_seconds": max(kill["left_seconds"] for kill in kills),
    }


def main() -> None:
    """Distribute the kills over kinds of runs, numbers of processes and precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000, help="trials to add")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--recipes", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "no"])
    add_options(parser)
    options = parser.parse_args()

    # Imported before the forks, which then start at once; after --help, which need not wait for torch.
    import torch._dynamo  # noqa: F401  # DistributedDataParallel imports it

    from mnist_accel.reports import plots  # noqa: F401
    from mnist_accel.training import train as training  # noqa: F401

    evidence = Evidence(options.results)
    kinds = [Kind(*of) for of in itertools.product(options.recipes, options.processes, options.precisions)]
    with tempfile.TemporaryDirectory() as name:
        small_mnist(Path(name) / DATA)
        for number in evidence.numbers(options.kills, options.minutes):
            kind, generator = kinds[number % len(kinds)], random.Random(f"{options.seed}-{number}")
            reference = reference_of(kind, Path(name), evidence)
            evidence.add(trial=number, **trial(Path(name) / "killed", kind, reference, generator))
    print(json.dumps(found := summary(evidence)))
    raise SystemExit(found["same_weights"] != found["trials"])


if __name__ == "__main__":
    main()
