"""Kill training runs at random instants, resume them, and compare the final weights with an uninterrupted run's.

    python scripts/kill_harness.py --kills 1000 --processes 1 2 3 4

Each trial starts a new run and sends SIGKILL at a random instant, drawn uniformly over the length of an uninterrupted
run: to all processes, or to one, whose peers must then leave by themselves. One in four is killed again while it
resumes. Then it is resumed with `--resume auto`, and the SHA-256 of the weights is compared. A checkpoint is written
after every second step, so that many kills interrupt a save. The processes are forked from one that has imported torch;
each runs the command line.

One line per trial goes to stderr; the last line of stdout is a JSON object. The exit code is 1 unless all trials agree.
`--first N` continues at trial number N.
"""

import argparse
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COMMON: tuple[str, ...] = ("train", "--dataset", "mnist", "--epochs", "2", "--checkpoint-every", "2")
COMMON += ("--threads", "1", "--cpu", "--quiet", "--resume", "auto")
KINDS = {
    "accurate": ("--recipe", "accurate", "--train-samples", "450", "--batch-size", "50"),
    "accumulation": ("--train-samples", "450", "--batch-size", "37", "--gradient-accumulation-steps", "2"),
    "validation": ("--train-samples", "400", "--batch-size", "50", "--validation-samples", "100", "--select", "best"),
}
"""About 20 steps and 10 checkpoints: with dropout; augmentation, batch normalisation, a schedule and averaged weights;
odd parts of a batch; the best epoch's weights."""
LEAVE_SECONDS = 10.0
"""The peers of a killed process must have left after this time."""
AGAIN = 0.25
"""Share of the trials in which the resumed run is killed, too."""
LAUNCHER_SECONDS = 4.0
"""The peers get SIGTERM after this time; launchers send it at once."""


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


def start(folder: Path, kind: Kind) -> Run:
    """Fork the processes of one run, with the environment that a launcher gives them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [*COMMON, *KINDS[kind.recipe], "--mixed-precision", kind.precision, "--output-dir", str(folder)]
    pids = []
    for rank in range(kind.processes):
        pid = os.fork()
        if pid == 0:
            _become_rank(rank, kind.processes, port, arguments, folder.with_suffix(".log"))
        pids.append(pid)
    return Run(pids)


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
    """Run or resume to the end; the hash of the weights."""
    codes = start(folder, kind).wait(240)
    if codes != [0] * kind.processes:
        raise RuntimeError(f"exit codes {codes}: {folder.with_suffix('.log').read_text()[-2000:]}")
    return weights_hash(folder)


def kill(folder: Path, kind: Kind, length: float, generator: random.Random) -> tuple[str, float] | None:
    """Start or resume a run and kill it; a description, and the seconds until the peers had left.

    None when the run has finished before it could be killed. Raises RuntimeError if the peers do not leave.
    """
    run = start(folder, kind)
    instant = generator.uniform(0, length)
    time.sleep(instant)
    if (folder / "mnist_cnn_model.json").exists() and run.wait(0) is not None:
        return None
    victims = run.kill(generator)
    killed = time.monotonic()
    codes = run.wait(LAUNCHER_SECONDS)
    if codes is None:  # a process killed before it joined is unknown to its peers; a launcher would end them
        run.signal(signal.SIGTERM)
        codes = run.wait(LEAVE_SECONDS - LAUNCHER_SECONDS)
    left = time.monotonic() - killed
    if codes is None:
        run.signal(signal.SIGKILL)
        run.wait(10)
        raise RuntimeError(f"peers of a process killed after {instant:.2f} s were running after {LEAVE_SECONDS} s")
    checkpoints = len(list(folder.glob("checkpoints/checkpoint-*")))
    saving = "in a save" if list(folder.glob("checkpoints/.*.tmp")) else f"{checkpoints} checkpoints"
    return f"{victims} killed after {instant:.2f} s ({saving}), left in {left:.2f} s", left


def trial(folder: Path, kind: Kind, length: float, expected: str, generator: random.Random) -> tuple[bool, str, float]:
    """Kill a run once or twice and resume it; whether the weights agree, a description, and the longest leave."""
    kills: list[tuple[str, float]] = []
    while not kills:
        shutil.rmtree(folder, ignore_errors=True)
        if (first := kill(folder, kind, length, generator)) is not None:
            kills.append(first)
    if generator.random() < AGAIN and (again := kill(folder, kind, length, generator)) is not None:
        kills.append(again)
    how = f"{kind}: {'; again '.join(text for text, _ in kills)}"
    return complete(folder, kind) == expected, how, max(left for _, left in kills)


def main() -> None:
    """Distribute the kills over numbers of processes and precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--recipes", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--precisions", nargs="+", default=["bf16", "no"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    # Imported before the forks, which then start at once; after --help, which need not wait for torch.
    from mnist_accel.hardware.cores import available_cores
    from mnist_accel.reports import plots  # noqa: F401
    from mnist_accel.training import train as training  # noqa: F401

    summary = run_trials(options)
    summary["cores"] = available_cores()
    print(json.dumps(summary))
    raise SystemExit(summary["bit_identical"] != options.kills)


def run_trials(options: argparse.Namespace) -> dict[str, Any]:
    """All trials, after one uninterrupted run of each kind as reference."""
    kinds = [
        Kind(recipe, processes, precision)
        for recipe in options.recipes
        for processes in options.processes
        for precision in options.precisions
    ]
    agreed, in_saves, slowest = 0, 0, 0.0
    began = time.monotonic()
    references: dict[Kind, tuple[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.first, options.first + options.kills):
            kind, generator = kinds[number % len(kinds)], random.Random(f"{options.seed}-{number}")
            if kind not in references:
                started = time.monotonic()
                expected = complete(Path(name) / f"whole-{number}", kind)
                references[kind] = (expected, time.monotonic() - started)
            expected, length = references[kind]
            same, how, left = trial(Path(name) / "killed", kind, length, expected, generator)
            agreed += same
            in_saves += "in a save" in how
            slowest = max(slowest, left)
            print(f"{number} {'same' if same else 'DIFFERENT'}: {how}", file=sys.stderr, flush=True)
    return {
        "kills": options.kills,
        "bit_identical": agreed,
        "in_a_save": in_saves,
        "slowest_peers_left_seconds": round(slowest, 2),
        "first": options.first,
        "recipes": options.recipes,
        "processes": options.processes,
        "precisions": options.precisions,
        "seconds": round(time.monotonic() - began),
    }


if __name__ == "__main__":
    main()
