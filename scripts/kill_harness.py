"""Kill training runs at random instants, resume them, and compare the final weights with an uninterrupted run's.

    python scripts/kill_harness.py --kills 200 --processes 1 2 3

Each trial starts a new run and sends SIGKILL at a random instant, drawn uniformly over the length of an uninterrupted
run: to all processes, or to one, whose peers must then leave by themselves. It resumes the run with `--resume auto` and
compares the SHA-256 of the weights. A checkpoint is written after every second step, so that many kills interrupt a
save. The processes are forked from one that has imported torch; each runs the command line.

One line per trial goes to stderr; the last line of stdout is a JSON object. The exit code is 1 unless all trials agree.
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

RUN = (
    *("train", "--recipe", "accurate", "--dataset", "mnist", "--train-samples", "450"),
    *("--epochs", "2", "--batch-size", "50"),
    *("--checkpoint-every", "2", "--threads", "1", "--cpu", "--quiet"),
)
"""18 steps and 9 checkpoints, with dropout, augmentation, batch normalisation, a schedule and averaged weights."""
LEAVE_SECONDS = 10.0
"""The peers of a killed process must have left after this time."""
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


def start(folder: Path, processes: int, precision: str) -> Run:
    """Fork the processes of one run, with the environment that a launcher gives them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [*RUN, "--mixed-precision", precision, "--output-dir", str(folder), "--resume", "auto"]
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            _become_rank(rank, processes, port, arguments, folder.with_suffix(".log"))
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


def complete(folder: Path, processes: int, precision: str) -> str:
    """Run or resume to the end; the hash of the weights."""
    codes = start(folder, processes, precision).wait(120)
    if codes != [0] * processes:
        raise RuntimeError(f"exit codes {codes}: {folder.with_suffix('.log').read_text()[-2000:]}")
    return weights_hash(folder)


def trial(
    scratch: Path, processes: int, precision: str, length: float, expected: str, generator: random.Random
) -> tuple[bool, str, float] | None:
    """One kill and one resume.

    Returns whether the weights agree, a description, and the seconds until the peers had left; None when the run
    finished before it could be killed.
    """
    folder = scratch / "killed"
    shutil.rmtree(folder, ignore_errors=True)
    run = start(folder, processes, precision)
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
        return (
            False,
            f"peers of a process killed after {instant:.2f} s were still running after {LEAVE_SECONDS} s",
            left,
        )
    checkpoints = len(list(folder.glob("checkpoints/checkpoint-*")))
    saving = "in a save" if list(folder.glob("checkpoints/.*.tmp")) else f"{checkpoints} checkpoints"
    found = complete(folder, processes, precision)
    how = f"{processes} processes, {precision}: {victims} killed after {instant:.2f} s ({saving}), left in {left:.2f} s"
    return found == expected, how, left


def main() -> None:
    """Distribute the kills over numbers of processes and precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3])
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
    generator = random.Random(options.seed)
    kinds = [(processes, precision) for processes in options.processes for precision in options.precisions]
    agreed, in_saves, slowest = 0, 0, 0.0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        references = {}
        for number, (processes, precision) in enumerate(kinds):
            folder = scratch / f"whole-{number}"
            started = time.monotonic()
            expected = complete(folder, processes, precision)
            references[processes, precision] = (expected, time.monotonic() - started)
        for number in range(options.kills):
            processes, precision = kinds[number % len(kinds)]
            expected, length = references[processes, precision]
            while (outcome := trial(scratch, processes, precision, length, expected, generator)) is None:
                pass
            same, how, left = outcome
            agreed += same
            in_saves += "in a save" in how
            slowest = max(slowest, left)
            print(f"{number + 1}/{options.kills} {'same' if same else 'DIFFERENT'}: {how}", file=sys.stderr, flush=True)
    return {
        "kills": options.kills,
        "bit_identical": agreed,
        "in_a_save": in_saves,
        "slowest_peers_left_seconds": round(slowest, 2),
        "processes": options.processes,
        "precisions": options.precisions,
        "seconds": round(time.monotonic() - began),
    }


if __name__ == "__main__":
    main()
