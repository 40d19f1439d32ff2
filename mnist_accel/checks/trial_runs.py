"""Short trainings that the sections of a certificate examine, in this process and in processes of their own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import named_sets
from mnist_accel.errors import LaunchError, printable
from mnist_accel.hardware.accelerator import gpu_count
from mnist_accel.hardware.cores import available_cores
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.training.events import Observer
from mnist_accel.training.train import TrainResult, run_training

TRAIN_SAMPLES, TEST_SAMPLES = 300, 100
"""Of the small data set. The training samples leave a short last batch for the batch sizes in use."""
CHILD_SECONDS = 300


@dataclass(frozen=True)
class Trials:
    """The extent of a certificate's checks.

    Attributes:
        folder: for the files of all runs.
        seeds: number of runs in the section on convergence.
        first_seed: their first seed.
        burn_in_seconds: the time for repeating one training.
        is_quick: leave out what needs more than a few seconds and finds little.
    """

    folder: Path
    seeds: int
    first_seed: int
    burn_in_seconds: float
    is_quick: bool

    @property
    def processes(self) -> int:
        """The largest number of processes to compare; 1 if this machine can run one only."""
        return min(4, gpu_count()) if gpu_count() > 1 else min(2, available_cores())

    @property
    def dataset(self) -> str:
        """A small part of MNIST, as a value of `--dataset`."""
        path = self.folder / "digits.npz"
        if not path.exists():
            mnist = named_sets.load("mnist", self.folder, lambda _: None)
            train, test = mnist.train, mnist.test
            np.savez(
                path,
                x_train=train.images[:TRAIN_SAMPLES],
                y_train=train.labels[:TRAIN_SAMPLES],
                x_test=test.images[:TEST_SAMPLES],
                y_test=test.labels[:TEST_SAMPLES],
            )
        return f"npz:{path}"

    def train(self, name: str, observer: Observer | None = None, **settings: Any) -> TrainResult:
        """Train in this process, in the folder `name`."""
        config = TrainConfig(output_dir=self.folder / name, **settings)
        return run_training(config, observer or Observer(), StopRequests())[0]

    def recipe(self, name: str, **settings: Any) -> str:
        """The path of a new recipe file with `settings`."""
        path = self.folder / f"{name}.toml"
        path.write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()).replace("'", '"'))
        return str(path)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """A command in a process of its own, without the variables of a launcher."""
        launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        environment = {name: value for name, value in os.environ.items() if name not in launcher}
        command = [sys.executable, "-m", "mnist_accel", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def output_of(process: subprocess.Popen[str], code: int = 0) -> str:
    """The output of a process that must end with the exit code `code`.

    Raises:
        LaunchError: it ends with another one.
    """
    try:
        output, errors = process.communicate(timeout=CHILD_SECONDS)
    finally:
        process.kill()
    if process.returncode != code:
        reason = printable((errors.splitlines() or ["no message"])[-1])
        raise LaunchError(f"a process ended with exit code {process.returncode} instead of {code}: {reason}")
    return output


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object]) -> None:
    """Wait for a condition while `process` runs. Raises LaunchError if the process ends first."""
    deadline = time.monotonic() + CHILD_SECONDS
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise LaunchError("the run ended before it could be stopped")
        time.sleep(0.003)
