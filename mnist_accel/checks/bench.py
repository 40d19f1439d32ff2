"""What this machine gives: images a second of each way to train, measured in turn with the default way: `run_bench`."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import LaunchError
from mnist_accel.hardware.accelerator import gpu_count
from mnist_accel.hardware.cores import available_cores
from mnist_accel.hardware.cpu import has_compiler
from mnist_accel.hardware.precision import choose_precision
from mnist_accel.speed.onednn import is_faster

KINDS = ("ours", "bare", "bare, our model and allocator", "plain script")
FORMATS = ("oneDNN layout", "channels_last", "contiguous")
"""Of the memory; the first is that of `layout.py`, which the compiler does not know."""


@dataclass(frozen=True)
class Candidate:
    """A way to train.

    Attributes:
        kind: one of KINDS; the bare loops and the plain script are in `baselines.py`.
        memory_format: one of FORMATS; bare loops choose their own.
        batch_size: of one step, over all processes.
        steps: of a burst.
    """

    kind: str
    recipe: str
    model: str
    batch_size: int
    mixed_precision: str
    memory_format: str = "channels_last"
    compile: bool = False
    processes: int = 1
    cpu: bool = False
    steps: int = 100

    @property
    def title(self) -> str:
        """For people."""
        if self.kind == "plain script":
            return "plain PyTorch script, fp32"
        precision = {"no": "fp32"}.get(self.mixed_precision, self.mixed_precision)
        if self.kind != "ours":
            return f"bare loop{self.kind.removeprefix('bare')}, {precision}"
        more = ", compiled" if self.compile else ""
        return f"{precision}, {self.memory_format}{more}, {self.processes} process{'es' if self.processes > 1 else ''}"


@dataclass(frozen=True)
class Measured:
    """What came of a candidate.

    Attributes:
        images_per_second: median over the rounds.
        ratio: of its speed to the default way's, round by round in turn: median, lowest and highest.
        parts: seconds a step by part; of this package's loop only.
    """

    candidate: Candidate
    images_per_second: float
    ratio: float
    ratio_lowest: float
    ratio_highest: float
    rounds: int
    parts: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        return {"title": self.candidate.title} | dataclasses.asdict(self)


class Worker:
    """A candidate in a process of its own, that runs a burst of steps when told to.

    Raises:
        LaunchError: it ended before it was told to.
    """

    def __init__(self, candidate: Candidate) -> None:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={candidate.processes}"]
        self.candidate = candidate
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in end()
        self.process = subprocess.Popen(
            [
                sys.executable,
                *(launcher if candidate.processes > 1 else []),
                *("-m", "mnist_accel.checks.bench_worker", json.dumps(dataclasses.asdict(candidate))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
        )
        self._answer()

    def burst(self) -> float:
        """Images a second of one burst."""
        return self.candidate.steps * self.candidate.batch_size / float(self._ask("go"))

    def split(self) -> dict[str, float]:
        """Seconds a step by part."""
        return cast(dict[str, float], self._ask("split"))

    def facts(self) -> dict[str, Any]:
        """Of the machine and the model."""
        return cast(dict[str, Any], self._ask("facts"))

    def end(self) -> None:
        """Let it go, as it is."""
        self.process.kill() if self.candidate.processes == 1 else self.process.terminate()
        self.process.communicate()
        self.said.close()

    def _ask(self, question: str) -> Any:
        assert self.process.stdin
        self.process.stdin.write(question + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            last = (self.said.read().strip().splitlines() or ["no message"])[-1]
            self.end()
            raise LaunchError(f"bench: the process for {self.candidate.title} ended ({last[:200]})", "see --debug")
        return json.loads(line)


def default_candidate(config: TrainConfig) -> Candidate:
    """The way that `mnist-accel train` takes here by itself."""
    on_cpu = config.cpu or gpu_count() == 0
    precision, _ = choose_precision(config.mixed_precision, "cpu" if on_cpu else "cuda", config.dtype)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    is_blocked = on_cpu and is_faster(dtype)
    memory_format = FORMATS[0] if is_blocked else FORMATS[1]
    return Candidate("ours", config.recipe, config.model, config.batch_size, precision, memory_format, cpu=on_cpu)


def candidates(default: Candidate) -> list[Candidate]:
    """All ways to measure besides the default one, as far as this machine can go them; the baselines last."""
    precisions = list(dict.fromkeys([default.mixed_precision, "no"] + ([] if default.cpu else ["fp16"])))
    processes = min(2, available_cores() if default.cpu else gpu_count())
    can_compile = not default.cpu or has_compiler()
    change = dataclasses.replace
    ways = [
        change(default, mixed_precision=precision, memory_format=memory_format, compile=compiled)
        for precision in precisions
        for memory_format in dict.fromkeys((default.memory_format, *FORMATS[1:]))
        for compiled in ((False, True) if can_compile and memory_format != FORMATS[0] else (False,))
    ]
    if processes > 1:
        ways += [change(default, mixed_precision=precision, processes=processes) for precision in precisions]
    ways += [change(default, kind=KINDS[2])]
    if default.model == "cnn":
        ways += [change(default, kind="bare", mixed_precision=precision) for precision in precisions]
        ways += [change(default, kind="plain script", mixed_precision="no")]
    return [way for way in ways if way != default]


def run_bench(
    default: Candidate, others: list[Candidate], rounds: int, tell: Callable[[Measured], None]
) -> tuple[list[Measured], dict[str, Any]]:
    """Measure each candidate in turn with the default one, `rounds` bursts each.

    Gives the figures, the default candidate's first, and facts of the machine (`bench_worker.facts`).

    Args:
        tell: called with each figure as it comes.

    Raises:
        LaunchError: a candidate's process ended.
    """
    found = []
    reference = Worker(default)
    try:
        speeds = [reference.burst() for _ in range(rounds)]
        first = Measured(default, statistics.median(speeds), 1.0, 1.0, 1.0, rounds, reference.split())
        facts = reference.facts()
        tell(first)
        found.append(first)
        for candidate in others:
            worker = Worker(candidate)
            try:
                speeds, ratios = [], []
                for _ in range(rounds):
                    speeds.append(worker.burst())
                    ratios.append(speeds[-1] / reference.burst())
                parts = worker.split() if candidate.kind == "ours" else {}
            finally:
                worker.end()
            measured = Measured(
                candidate,
                statistics.median(speeds),
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                rounds,
                parts,
            )
            tell(measured)
            found.append(measured)
    finally:
        reference.end()
    return found, facts
