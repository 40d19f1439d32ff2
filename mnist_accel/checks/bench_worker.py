"""One candidate of the benchmark: runs bursts of training steps in a process of its own."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from mnist_accel.checks import baselines
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.data.named_sets import DIGITS
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.reports.console import TrainingConsole
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import train_epoch
from mnist_accel.training.setup import Progress, prepare
from mnist_accel.training.train import run_facts, start

BURSTS_PER_EPOCH = 5
"""With 100 steps each, about one epoch of MNIST; the progress bar starts and a checkpoint is written once in each."""


@dataclass(frozen=True)
class Candidate:
    """One way to train.

    Attributes:
        kind: "ours" for this package's loop; "bare loop" and "plain script" are in `baselines.py`.
        steps: optimizer steps of one burst, the unit that is timed.
    """

    title: str
    kind: str
    recipe: str
    batch_size: int
    mixed_precision: str
    speedups: bool = True
    processes: int = 1
    cpu: bool = False
    steps: int = 100

    @property
    def device(self) -> torch.device:
        found = None if self.cpu else torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")


def timed_burst(candidate: Candidate, port: int, folder: Path, rank: int) -> float:
    """Run one burst in this process, which is process `rank` of the candidate; images per second."""
    burst = _set_up(candidate, port, folder, rank)
    began = time.perf_counter()
    burst()
    if candidate.device.type != "cpu":
        torch.accelerator.synchronize()
    return candidate.steps * candidate.batch_size / (time.perf_counter() - began)


@functools.cache
def _set_up(candidate: Candidate, port: int, folder: Path, rank: int) -> Callable[[], None]:
    """Prepare the candidate and warm up. Returns a function that runs one burst."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries' warnings
    if candidate.processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(candidate.processes))
    if candidate.kind == "ours":
        burst = ours_burst(candidate, folder)
    else:
        burst = baselines.training_burst(candidate, random_digits(20_000))
    burst()
    return burst


def ours_burst(candidate: Candidate, folder: Path) -> Callable[[], None]:
    """This package's loop, with its progress bar, metrics and checkpoints."""
    config = TrainConfig(
        recipe=candidate.recipe,
        mixed_precision=candidate.mixed_precision,
        cpu=candidate.cpu,
        timeout=3600,
        output_dir=folder,
        speedups=candidate.speedups,
    )
    hardware = start(config)
    digits = random_digits(candidate.steps * config.batch_size)
    dataset = DataSet("random", digits, digits, DIGITS, "", {})
    setup = prepare(config, hardware, dataset)
    screen = Console(file=Path(os.devnull).open("w"), force_terminal=hardware.is_main)  # noqa: SIM115  # open to the end
    console = TrainingConsole(screen)
    console.run_started(run_facts(setup, dataset))
    guard = Guard(config, {}, StopRequests(), console)
    bursts = 0

    def burst() -> None:
        nonlocal bursts
        progress = Progress()
        if bursts % BURSTS_PER_EPOCH == 0:
            console.epoch_started(0, 0)
        train_epoch(setup, progress, console, guard)
        bursts += 1
        if bursts % BURSTS_PER_EPOCH == 0:
            guard.save(setup, progress)
            console.close()

    return burst


def random_digits(samples: int) -> Digits:
    """Random pixels; speed does not depend on the content of images."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
    return Digits(images, generator.integers(0, 10, samples))
