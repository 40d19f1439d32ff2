"""Short trainings that the sections of a certificate examine, in this process and in processes of their own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import named_sets
from mnist_accel.errors import LaunchError, printable
from mnist_accel.hardware.accelerator import gpu_count
from mnist_accel.hardware.cores import available_cores
from mnist_accel.training.events import Observer
from mnist_accel.training.train import TrainResult, run_training

CHILD_SECONDS, TEST_SAMPLES = 300, 100
REFERENCE_RUN: dict[str, Any] = {"model": "small-cnn", "epochs": 1, "batch_size": 256, "lr": 0.01, "dropout": 0.0}
REFERENCE_RUN |= {"beta1": 0.7, "beta2": 0.9, "schedule": "one-cycle", "warmup": 0.2}
"""The training of the reference runs in reference.json. Not a recipe, so that recipes can change."""


@dataclass(frozen=True)
class Trials:
    """The extent of a certificate's checks."""

    folder: Path  # for the files of all runs
    seeds: int  # number of runs in the section on convergence
    first_seed: int
    burn_in_seconds: float  # the time for repeating one training
    is_quick: bool  # leave out what needs more than a few seconds and finds little

    @property
    def processes(self) -> int:
        """The largest number of processes to compare; 1 if this machine can run one only."""
        return min(4, gpu_count()) if gpu_count() > 1 else min(2, available_cores())

    @cached_property
    def dataset(self) -> str:
        """A small data set. The training samples leave a short last batch for the batch sizes in use."""
        return write_digits(self.folder / "digits.npz", train_samples=300)

    def train(self, name: str, observer: Observer | None = None, **settings: Any) -> TrainResult:
        """Train in this process, in the folder `name`."""
        config = TrainConfig(output_dir=self.folder / name, **settings)
        return run_training(config, observer or Observer())[0]

    def start(self, command: str, **settings: object) -> subprocess.Popen[str]:
        """A command with options for `settings` in a process of its own."""
        arguments = [sys.executable, "-m", "mnist_accel", command, "--json"]
        for name, value in settings.items():
            option = f"--{name.replace('_', '-')}"
            arguments += [option] * (value is True) if isinstance(value, bool) else [option, str(value)]
        pipe = subprocess.PIPE
        return subprocess.Popen(arguments, cwd=self.folder, stdout=pipe, stderr=pipe, text=True)

    def run(self, command: str, **settings: object) -> dict[str, Any]:
        """The JSON object that a command prints. Raises LaunchError if it fails."""
        return dict(json.loads(finish(self.start(command, **settings))[0].splitlines()[-1]))


def write_digits(path: Path, train_samples: int) -> str:
    """Write the first training and test digits of MNIST; the file as a value of `--dataset`."""
    mnist = named_sets.load("mnist", path.parent, lambda _: None)
    arrays: dict[str, Any] = {}
    for name, digits, count in (("train", mnist.train, train_samples), ("test", mnist.test, TEST_SAMPLES)):
        arrays |= {f"x_{name}": digits.images[:count], f"y_{name}": digits.labels[:count]}
    np.savez(path, **arrays)
    return f"npz:{path}"


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    """Stdout and stderr of a process. Raises LaunchError if it ends with another exit code than `code`."""
    try:
        output, errors = process.communicate(timeout=CHILD_SECONDS)
    finally:
        process.kill()
    if process.returncode != code:
        reason = printable((errors.splitlines() or ["no message"])[-1])
        raise LaunchError(f"a process ended with exit code {process.returncode} instead of {code}: {reason}")
    return output, errors


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Wait for a condition while `process` runs. Raises LaunchError if the process ends first."""
    deadline = time.monotonic() + CHILD_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LaunchError("the run ended before it could be stopped")
        time.sleep(0.003)
