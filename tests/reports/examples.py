"""A run's facts and records for the tests of reports."""

import io

import numpy as np
import torch
from rich.console import Console

from mnist_accel.training.events import EpochRecord, RunFacts
from mnist_accel.training.train import TrainResult

LOSSES = np.zeros(469, dtype=np.float32)
PLAIN = {
    "model": "cnn",
    "epochs": 10,
    "lr": 0.001,
    "schedule": "constant",
    "dropout": 0.0,
    "label_smoothing": 0.0,
    "rotation": 0.0,
    "shift": 0.0,
    "scale": 0.0,
    "average": 0.0,
    "seed": 0,
    "dtype": "float32",
    "compile": False,
    "checkpoint_every": None,
    "keep": 2,
    "gradient_accumulation_steps": 1,
}


def facts(**settings: object) -> RunFacts:
    known = PLAIN | settings
    return RunFacts(
        model="cnn",
        recipe="classic",
        settings=known,
        dataset="mnist",
        class_names=tuple("0123456789"),
        source="package mnist_accel",
        checksums={},
        train_samples=60_000,
        validation_samples=0,
        test_samples=10_000,
        parameters=594_922,
        epochs=int(str(known["epochs"])),
        steps_per_epoch=469,
        batch_size=128,
        world_size=1,
        exchange="",
        device="cpu",
        device_name="a processor",
        cpu="a processor",
        threads=1,
        mixed_precision="no",
        precision_reason="asked for",
        output_dir=str(known.get("output_dir", ".")),
    )


def record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch, 1 / epoch, 0.9, 0.5 / epoch, 0.95, 0.001, 123_456.0, 1234.5)


def result(
    epochs: int, *, last_loss: float = 0.2, step_losses: tuple[float, ...] = (), **settings: object
) -> TrainResult:
    """A finished run, whose training loss falls from 1 to `last_loss`."""
    losses = np.geomspace(1, last_loss, epochs).tolist()
    history = [EpochRecord(epoch, loss, 0.9, loss, 0.95, 0.001, 1e5, 1.0) for epoch, loss in enumerate(losses, 1)]
    return TrainResult(
        **vars(facts(epochs=epochs, **settings)),
        steps=469 * epochs,
        train_loss=losses[-1],
        train_accuracy=0.9,
        test_loss=losses[-1],
        test_accuracy=0.99,
        train_seconds=1.0 * epochs,
        images_per_second=1e5,
        wall_seconds=2.0 * epochs,
        weights_sha256="",
        chosen_epoch=epochs,
        history=tuple(history),
        step_losses=step_losses or (1.0,) * epochs,
    )


def sums(steps: int) -> torch.Tensor:
    batch_sizes = torch.full((3, steps), 128.0)
    batch_sizes[:, 468:] = 96.0  # the last batch of an epoch is short
    return batch_sizes


def terminal(width: int = 80, *, dumb: bool = False) -> Console:
    environment = {"TERM": "dumb" if dumb else "xterm"}
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, height=25, highlight=False, _environ=environment
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
