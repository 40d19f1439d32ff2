"""Measures training speed: images per second of each way to train, timed in turn with the default.

Also the certificate's section on speed, which is reported and never fails: other programs slow a machine down.
"""

import multiprocessing
import socket
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.text import Text

from mnist_accel.checks.arithmetic import precisions
from mnist_accel.checks.bench_worker import Candidate, burst, set_up
from mnist_accel.checks.trial_runs import REFERENCE_RUN, Trials, write_digits
from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import LaunchError, printable
from mnist_accel.hardware.accelerator import accelerator_type, choose_precision, gpu_count
from mnist_accel.hardware.cores import available_cores, cpu_name
from mnist_accel.reports.tables import running
from mnist_accel.reports.timing import Timing, flop_per_image, machine_use, matrix_flop_per_second

STEPS_PER_CHECKPOINT, CHECKPOINTS = 24, 9
DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Measured:
    """The speed of one candidate, or the reason why it could not be measured."""

    candidate: Candidate
    images_per_second: float = 0.0
    peak_share: float = 0.0  # operations per second, as a share of those in large matrix products of this precision
    ratios: list[float] = field(default_factory=list)  # speed relative to the reference's burst of the same round
    failure: str = ""

    def as_line(self) -> Text:
        """The result for people."""
        line = Text(f"{self.candidate.title:<30}", style="bold")
        if self.failure:
            return line.append(f"failed: {self.failure}", style="red")
        low, middle, high = min(self.ratios), median(self.ratios), max(self.ratios)
        speeds = f"{self.images_per_second:>10,.0f} images/s, {self.peak_share:.0%} of the peak"
        return line.append(f"{speeds}, {middle:.2f} × the default ({low:.2f} to {high:.2f})", style="not bold")


def bursts(candidate: Candidate, dataset: str, folder: Path) -> Generator[float]:
    """Images per second of one burst after another, in processes of their own, which write into `folder`.

    Raises LaunchError if a process cannot train the candidate, or ends.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        processes = [
            stack.enter_context(ProcessPoolExecutor(1, context, set_up, (candidate, port, rank)))
            for rank in range(candidate.processes)
        ]
        while True:
            try:
                answers = [process.submit(burst, candidate, dataset, folder / str(port)) for process in processes]
                speed = min(answer.result() for answer in as_completed(answers))
            except Exception as error:
                raise LaunchError(f"{type(error).__name__}: {error}") from error
            yield speed


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


def run_bench(compared: Sequence[Candidate], rounds: int, facts: dict[str, Any]) -> Iterator[Measured]:
    """Measure each candidate for `rounds` bursts, each followed by a burst of the first candidate, the reference.

    The reference is compared with itself as well, in a process of its own: its spread is the noise of this machine.
    Raises LaunchError if the reference cannot train. Any other candidate that fails is reported and the others go on.
    `facts` are from `machine_facts`.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_digits(folder / "digits.npz", compared[0].steps * compared[0].batch_size)
        with closing(bursts(compared[0], dataset, folder)) as reference:
            next(reference)
            for candidate in compared:
                with running(candidate.title), closing(bursts(candidate, dataset, folder)) as own:
                    yield measure(candidate, own, reference, rounds, facts)


def measure(
    candidate: Candidate, own: Iterator[float], reference: Iterator[float], rounds: int, facts: dict[str, Any]
) -> Measured:
    """The speed of one candidate; its first burst warms up."""
    speeds, ratios = [], []
    for _ in range(1 + rounds):
        try:
            speeds.append(next(own))
        except LaunchError as error:
            return Measured(candidate, failure=printable(error))
        ratios.append(speeds[-1] / next(reference))
    speed = median(speeds[1:])
    peak = facts["matrix_flop_per_second"][candidate.mixed_precision] * (1 if candidate.cpu else candidate.processes)
    return Measured(candidate, speed, speed * facts["flop_per_image"] / peak, ratios[1:])


def machine_facts(model: str, compared: Sequence[Candidate]) -> dict[str, Any]:
    """The device, the floating-point operations to train on one image, and the highest speed of matrix products."""
    device, precisions = compared[0].device, {candidate.mixed_precision for candidate in compared}
    peaks = {name: matrix_flop_per_second(device, DTYPES[name], available_cores()) for name in precisions}
    machine = {"device": cpu_name() if device.type == "cpu" else str(device), "torch": str(torch.__version__)}
    return machine | {"flop_per_image": flop_per_image(model), "matrix_flop_per_second": peaks}


def check(trials: Trials) -> tuple[None, str, dict[str, Any]]:
    """Train once without and once with checkpoints; the figures of the section on speed."""
    settings: dict[str, Any] = REFERENCE_RUN | {"dataset": "mnist", "mixed_precision": precisions()[-1]}
    result = trials.train("speed", **settings)
    timing = Timing()
    trials.train("speed", timing, checkpoint_every=STEPS_PER_CHECKPOINT, **settings)
    stall = timing.spent.seconds["checkpoints"] / CHECKPOINTS
    share, speed = machine_use(result)["peak_share"], result.images_per_second
    summary = (
        f"{speed:,.0f} images/s, {share:.0%} of the peak of matrix products; a checkpoint takes {1000 * stall:.0f} ms"
    )
    return None, summary, {"images_per_second": speed, "peak_share": share, "checkpoint_seconds": stall}
