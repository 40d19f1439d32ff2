"""Measures training speed: images per second of each candidate, timed in turn with the default."""

import multiprocessing
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from statistics import median
from typing import Any, cast

import torch
from rich.text import Text
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from mnist_accel.checks.bench_worker import Candidate, serve
from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import LaunchError, printable
from mnist_accel.hardware.accelerator import accelerator_type, gpu_count
from mnist_accel.hardware.cores import available_cores, cpu_name
from mnist_accel.hardware.precision import choose_precision
from mnist_accel.models import architectures

MATRIX_SIDE = 2048
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Measured:
    """The speed of one candidate, or the reason why it could not be measured.

    Attributes:
        images_per_second: median over the rounds.
        peak_share: arithmetic operations per second, as a share of those in large matrix products of this precision.
        ratios: speed relative to the reference's burst of the same round, one number per round.
    """

    candidate: Candidate
    images_per_second: float = 0.0
    peak_share: float = 0.0
    ratios: list[float] = field(default_factory=list)
    failure: str = ""

    def as_line(self) -> Text:
        """The result for people."""
        line = Text(f"{self.candidate.title:<30}", style="bold")
        if self.failure:
            return line.append(f"failed: {self.failure}", style="red")
        low, middle, high = min(self.ratios), median(self.ratios), max(self.ratios)
        speeds = f"{self.images_per_second:>10,.0f} images/s, {self.peak_share:.0%} of the peak"
        return line.append(f"{speeds}, {middle:.2f} × the default ({low:.2f} to {high:.2f})", style="not bold")


class Worker:
    """A candidate in processes of its own."""

    def __init__(self, candidate: Candidate) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(candidate.processes):
            here, there = context.Pipe()
            self.pipes.append(here)
            self.processes.append(context.Process(target=serve, args=(candidate, rank, port, there), daemon=True))
            self.processes[-1].start()
            there.close()  # so that the end of the process is noticed

    def burst(self) -> float:
        """Run one burst; images per second. Raises LaunchError if a process cannot set up the candidate, or ends."""
        answers: list[float] = []
        try:
            for pipe in self.pipes:
                pipe.send("burst")
            while len(answers) < len(self.pipes):  # the first to answer may be the one that failed
                for pipe in cast("list[connection.Connection]", connection.wait(self.pipes)):
                    answer = pipe.recv()
                    if isinstance(answer, str):
                        raise LaunchError(answer)
                    answers.append(answer)
        except (EOFError, OSError) as error:
            raise LaunchError("its process ended before it answered") from error
        return min(answers)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def candidates(config: TrainConfig) -> list[Candidate]:
    """The way in which `mnist-accel train` trains here by default, and its alternatives on this machine."""
    on_cpu = config.cpu or gpu_count() == 0
    precision, _ = choose_precision(config.mixed_precision, "cpu" if on_cpu else accelerator_type())
    name = "fp32" if precision == "no" else precision
    default = Candidate(f"{name}, 1 process", "ours", config.recipe, config.batch_size, precision, cpu=on_cpu)
    found = [default, replace(default, title=f"{name}, 1 process, speedups off", speedups=False)]
    if precision != "no":
        found.append(replace(default, title="fp32, 1 process", mixed_precision="no"))
    if (available_cores() if on_cpu else gpu_count()) > 1:
        found.append(replace(default, title=f"{name}, 2 processes", processes=2))
    if config.model == "cnn":  # the only model of the hand-written loops
        found.append(replace(default, title="bare loop, bf16", kind="bare loop", mixed_precision="bf16"))
        plain = replace(default, mixed_precision="no")
        found += [replace(plain, title=f"{kind}, fp32", kind=kind) for kind in ("bare loop", "plain script")]
    return found


def run_bench(
    compared: Sequence[Candidate],
    rounds: int,
    facts: dict[str, Any],
    running: Callable[[str], AbstractContextManager[object]],
) -> Iterator[Measured]:
    """Measure each candidate for `rounds` bursts, each followed by a burst of the first candidate, the reference.

    The reference is compared with itself as well, in a process of its own: its spread is the noise of this machine.

    Args:
        facts: from `machine_facts`.
        running: called with a candidate's title; the context lasts as long as its measurement.

    Raises:
        LaunchError: the reference failed. Any other candidate that fails is reported and the others go on.
    """
    reference = Worker(compared[0])
    try:
        reference.burst()
        for candidate in compared:
            with running(candidate.title):
                measured = _compare(candidate, reference, rounds)
            flop_per_second = measured.images_per_second * facts["flop_per_image"]
            peak = facts["matrix_flop_per_second"][candidate.mixed_precision]
            measured.peak_share = flop_per_second / peak / (1 if candidate.cpu else candidate.processes)
            yield measured
    finally:
        reference.end()


def _compare(candidate: Candidate, reference: Worker, rounds: int) -> Measured:
    measured = Measured(candidate)
    speeds = []
    worker = Worker(candidate)
    try:
        for _ in range(rounds):
            try:
                speeds.append(worker.burst())
            except LaunchError as error:
                return Measured(candidate, failure=printable(error))
            measured.ratios.append(speeds[-1] / reference.burst())
    finally:
        worker.end()
    measured.images_per_second = median(speeds)
    return measured


def machine_facts(model: str, compared: Sequence[Candidate]) -> dict[str, Any]:
    """The device, the floating-point operations to train on one image, and the highest speed of matrix products."""
    device = compared[0].device
    with FlopCounterMode(display=False) as counter:
        architectures.build(model, dropout=0.0).eval()(torch.zeros(1, 1, 28, 28)).sum().backward()
    peaks = {}
    for precision in {candidate.mixed_precision for candidate in compared}:
        matrix = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=DTYPES[precision], device=device)
        timer = Timer("matrix @ matrix", globals={"matrix": matrix}, num_threads=available_cores())
        peaks[precision] = 2 * MATRIX_SIDE**3 / min(timer.timeit(5).mean for _ in range(4))
    return {
        "device": cpu_name() if device.type == "cpu" else str(device),
        "torch": str(torch.__version__),
        "flop_per_image": counter.get_total_flops(),
        "matrix_flop_per_second": peaks,
    }
