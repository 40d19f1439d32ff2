"""Measures training speed: images per second of each candidate, timed in turn with the default."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing import connection
from statistics import median
from typing import Any, cast

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from mnist_accel.checks.bench_worker import Candidate, serve
from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import LaunchError, printable
from mnist_accel.hardware.accelerator import accelerator_type, gpu_count
from mnist_accel.hardware.cores import available_cores
from mnist_accel.hardware.cpu import cpu_name
from mnist_accel.hardware.precision import choose_precision
from mnist_accel.models import architectures

MATRIX_SIDE, MATRIX_PRODUCTS, MATRIX_ROUNDS = 2048, 5, 4
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Measured:
    """The speed of one candidate, or the reason why it could not be measured.

    Attributes:
        images_per_second: median over the rounds.
        peak_share: arithmetic operations per second, as a share of those in large matrix products of this precision.
        ratios: speed relative to the reference's burst of the same round, one number per round.
        failure: empty for a candidate that was measured.
    """

    candidate: Candidate
    images_per_second: float = 0.0
    peak_share: float = 0.0
    ratios: list[float] = field(default_factory=list)
    failure: str = ""


class Worker:
    """A candidate in processes of its own."""

    def __init__(self, candidate: Candidate) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(candidate.processes)]
        self.pipes = [here for here, _ in pipes]
        self.processes = []
        for rank, (_, there) in enumerate(pipes):
            process = context.Process(target=serve, args=(candidate, rank, port, there), daemon=True)
            process.start()
            there.close()  # so that the end of the process is noticed
            self.processes.append(process)

    def burst(self) -> float:
        """Run one burst; images per second.

        Raises:
            LaunchError: a process could not set up the candidate, or ended.
        """
        answers: list[float] = []
        try:
            for pipe in self.pipes:
                pipe.send("burst")
            while len(answers) < len(self.pipes):  # the first to answer may be the one that failed
                for pipe in cast(list[connection.Connection], connection.wait(self.pipes)):
                    answer = pipe.recv()
                    if isinstance(answer, str):
                        raise LaunchError(answer)
                    answers.append(answer)
        except (EOFError, OSError) as error:
            raise LaunchError("its process ended before it answered") from error
        return min(answers)

    def end(self) -> None:
        """End the processes."""
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
        for kind, dtype in (("bare loop", "bf16"), ("bare loop", "fp32"), ("plain script", "fp32")):
            its_precision = "no" if dtype == "fp32" else dtype
            found.append(replace(default, title=f"{kind}, {dtype}", kind=kind, mixed_precision=its_precision))
    return found


def run_bench(
    compared: Sequence[Candidate],
    rounds: int,
    facts: dict[str, Any],
    running: Callable[[str], AbstractContextManager[object]],
    tell: Callable[[Measured], None],
) -> list[Measured]:
    """Measure each candidate for `rounds` bursts, each followed by a burst of the first candidate, the reference.

    The reference is compared with itself as well, in a process of its own: its spread is the noise of this machine.

    Args:
        facts: from `machine_facts`.
        running: called with a candidate's title; the context lasts as long as its measurement.
        tell: called with each result as soon as it is known.

    Raises:
        LaunchError: the reference failed. Any other candidate that fails is reported and the others go on.
    """
    results = []
    reference = Worker(compared[0])
    try:
        reference.burst()
        for candidate in compared:
            with running(candidate.title):
                results.append(_compare(candidate, reference, rounds))
            its_peak = facts["matrix_flop_per_second"].get(candidate.mixed_precision, float("inf"))
            speed = results[-1].images_per_second / (1 if candidate.cpu else candidate.processes)
            results[-1].peak_share = speed * facts["flop_per_image"] / its_peak
            tell(results[-1])
    finally:
        reference.end()
    return results


def _compare(candidate: Candidate, reference: Worker, rounds: int) -> Measured:
    speeds: list[float] = []
    ratios: list[float] = []
    worker = Worker(candidate)
    try:
        for _ in range(rounds):
            try:
                speeds.append(worker.burst())
            except LaunchError as error:
                return Measured(candidate, failure=printable(error))
            ratios.append(speeds[-1] / reference.burst())
    finally:
        worker.end()
    return Measured(candidate, median(speeds), ratios=ratios)


def machine_facts(model: str, device: torch.device) -> dict[str, Any]:
    """The device, the floating-point operations to train on one image, and the highest speed of matrix products."""
    with FlopCounterMode(display=False) as counter:
        architectures.build(model, dropout=0.0).eval()(torch.zeros(1, 1, 28, 28)).sum().backward()
    peaks = {}
    for precision, dtype in DTYPES.items():
        if precision == "fp16" and device.type == "cpu":
            continue  # no candidate trains in fp16 on a CPU
        matrix = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=dtype, device=device)
        timer = Timer("matrix @ matrix", globals={"matrix": matrix}, num_threads=available_cores())
        best = min(timer.timeit(MATRIX_PRODUCTS).mean for _ in range(MATRIX_ROUNDS))
        peaks[precision] = 2 * MATRIX_SIDE**3 / best
    return {
        "device": cpu_name() if device.type == "cpu" else str(device),
        "torch": str(torch.__version__),
        "flop_per_image": counter.get_total_flops(),
        "matrix_flop_per_second": peaks,
    }
