"""Run by torchrun in several processes: trains a few steps and writes down what every process computed.

Usage: sameness.py OUTPUT.json DATASET
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import datasets, digits
from mnist_accel.data.batches import InputPipeline
from mnist_accel.data.digits import DataSet
from mnist_accel.hardware.peers import leave
from mnist_accel.training.events import Observer
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import fit
from mnist_accel.training.metrics import predict_dataset
from mnist_accel.training.setup import Progress, Setup, prepare
from mnist_accel.training.train import start

EVALUATION_BATCHES = (250, 37, 4096)
"""Dividing the test set, not dividing it, and of uneven shares."""

DISTORTED = {"rotation": 10, "shift": 2, "scale": 0.1, "schedule": "one-cycle", "average": 0.9}


class Spy(InputPipeline):
    """Writes down the indices that this process gathers."""

    seen: list[list[int]]

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        assert isinstance(indices, Tensor)
        self.seen.append(indices.tolist())
        return super().batch(indices)


class Keeper(Guard):
    """Keeps the sums of the epoch, and saves nothing."""

    sums: Tensor | None = None

    def __init__(self) -> None: ...

    def after_step(self, setup: Setup, progress: Progress) -> None:
        self.sums = progress.sums

    def after_epoch(self, setup: Setup, progress: Progress) -> None: ...


def curve(dtype: str, steps: int, accumulation: int, dataset: DataSet, **settings: Any) -> dict[str, Any]:
    """Train one epoch of `steps` steps of 37 samples, the last of 2; dropout 0."""
    batch_size = 37
    samples = (steps - 1) * batch_size + 2
    config = TrainConfig(
        dtype=dtype,
        mixed_precision="no",
        dropout=0.0,
        epochs=1,
        batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
        threads=1,
        **settings,
    )
    hardware = start(config)
    small = DataSet(
        name=dataset.name,
        train=digits.split_off(dataset.train, samples, 0)[0],
        test=digits.split_off(dataset.test, 11, 0)[0],
        class_names=dataset.class_names,
        source=dataset.source,
        checksums=dataset.checksums,
    )
    setup = prepare(config, hardware, small)
    setup.train_data.__class__ = Spy
    setup.train_data.seen = []  # type: ignore[attr-defined]
    gradients: list[float] = []

    def keep_first(*_: object) -> None:
        if not gradients:
            grads = [parameter.grad for parameter in setup.module.parameters()]
            gradients.extend(torch.cat([grad.flatten() for grad in grads if grad is not None])[::97].tolist())

    setup.optimizer.register_step_pre_hook(keep_first)
    keeper = Keeper()
    predictions = fit(setup, Progress(), Observer(), keeper)
    assert keeper.sums is not None
    losses = hardware.accelerator.reduce(keeper.sums[0], "sum")
    losses /= torch.tensor([batch_size] * (steps - 1) + [2])
    per_rank = gather_object([setup.train_data.seen])  # type: ignore[attr-defined]
    order: list[int] = []
    for part in range(steps * accumulation):
        for seen in per_rank:
            order.extend(seen[part])
    return {
        "order": order,
        "losses": losses.tolist(),
        "gradients": gradients,
        "test_samples": len(predictions),
        "world_size": hardware.world_size,
    }


def evaluations(dataset: DataSet) -> list[dict[str, int]]:
    """Counts of an untrained model on the test set at several batch sizes, in float32."""
    config = TrainConfig(mixed_precision="no", threads=1)
    hardware = start(config)
    setup = prepare(config, hardware, dataset)
    found = []
    for batch_size in EVALUATION_BATCHES:
        predictions = predict_dataset(setup.module, setup.test_data, hardware, batch_size)
        found.append({"samples": len(predictions), "correct": predictions.correct})
    return found


def main() -> None:
    """Everything in turn, in one process group."""
    output = Path(sys.argv[1])
    dataset = datasets.load(sys.argv[2], Path("data"), print)
    found = {
        "float64": curve("float64", 8, 1, dataset),
        "float64 accumulated": curve("float64", 8, 3, dataset),
        "float64 distorted": curve("float64", 8, 1, dataset, **DISTORTED),
        "float32": curve("float32", 10, 1, dataset),
        "evaluations": evaluations(dataset),
    }
    if start(TrainConfig(threads=1)).is_main:
        output.write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main()
