"""One rank of a short training run: prints what gradients went through, and a checksum of the weights.

Arguments: a scratch folder, and how shared memory is kept from the processes: "", "elsewhere",
"no room" or "forbidden".
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import numpy as np

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.datasets import DIGITS, DataSet, Digits
from mnist_accel.files import weights
from mnist_accel.hardware import accelerator as hardware
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.speed import shared_memory as exchange
from mnist_accel.training import loop as engine
from mnist_accel.training.events import Observer, Silence
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import Progress


def main(folder: Path, obstacle: str) -> None:
    if obstacle == "elsewhere" and os.environ["RANK"] == "1":
        exchange._place = lambda: "another machine"
    if obstacle == "no room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    if obstacle == "forbidden" and os.environ["RANK"] == "1":
        exchange.SharedMemory = _forbidden  # type: ignore[assignment,misc]
    config = TrainConfig(output_dir=folder, cpu=True, batch_size=25, recipe="accurate")
    machine = hardware.start(config)
    generator = np.random.default_rng(0)
    digits = Digits(generator.integers(0, 256, (260, 28, 28), dtype=np.uint8), generator.integers(0, 10, 260))
    training = engine.prepare(config, machine, DataSet("random", digits, digits, DIGITS, "", {}))
    observer: Observer = Silence()
    engine.train_epoch(training, Progress(), observer, Guard(config, {}, StopRequests(), observer))
    if machine.is_main:
        print(training.exchange, weights.sha256(weights.serialise(training.module)))
    hardware.stop()
    sys.stdout.flush()
    os._exit(0)


def _forbidden(*_: object) -> None:
    raise PermissionError


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
