"""The events of a run that observers hear, and the facts and figures that they carry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_accel.training.setup import Setup
    from mnist_accel.training.train import TrainResult


@dataclass(frozen=True)
class EpochRecord:
    """The figures of one finished epoch: one line of metrics.jsonl. Losses are mean cross entropies in nats.

    Test figures are None with held-out samples, because the test set is then used once, after the last epoch.
    """

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)

    epoch: int  # counted from 1
    train_loss: float  # each sample counts with the loss of the step that trained on it, with dropout and augmentation
    train_accuracy: float  # likewise
    test_loss: float | None  # after the epoch
    test_accuracy: float | None
    lr: float  # of the last step
    images_per_second: float
    train_seconds: float  # time of the training steps, without evaluation
    validation_loss: float | None = None  # on the held-out samples after the epoch
    validation_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of a run that are known before its first step. The panel, the result and the record show them."""

    model: str
    recipe: str
    settings: Mapping[str, Any]  # the whole configuration as JSON values
    dataset: str
    class_names: tuple[str, ...]  # in the order of the model's outputs
    source: str  # folder or package that the data set was read from
    checksums: Mapping[str, str]  # of the data files, by name
    train_samples: int
    validation_samples: int
    test_samples: int
    parameters: int  # number of trained parameters
    epochs: int
    steps_per_epoch: int  # optimizer steps
    batch_size: int
    world_size: int
    exchange: str  # how processes exchange gradients; empty for one process
    device: str
    device_name: str
    cpu: str
    threads: int  # of each process
    mixed_precision: str
    precision_reason: str  # in words
    output_dir: str


class Observer:
    """Listens to a training run; this one does nothing. Methods are called on every process, in this order."""

    def notice(self, text: str) -> None:
        """A message for the user, at any time."""

    def part_started(self, name: str) -> None:
        """From now on the time goes into "start-up", "data", "steps", "evaluation", "checkpoints" or "pictures"."""

    def run_prepared(self, setup: "Setup") -> None:
        """Called once, before `run_started`, with the objects that the loop works on."""

    def pictures_read(self, done: int, total: int) -> None:
        """Called while a folder of pictures is read, with the numbers of finished and of all pictures."""

    def run_started(self, facts: RunFacts) -> None:
        """Called once, before the first step."""

    def epoch_started(self, epoch: int, step: int) -> None:
        """Both count from 0; `step` is the first step of the epoch that this run makes."""

    def step_finished(self, step: int, sums: "Tensor") -> None:
        """`step` counts from 0. Reading `sums` (3, steps), this process's as in `Progress`, waits for the device."""

    def epoch_finished(self, record: EpochRecord, step_losses: npt.NDArray[np.float32]) -> None:
        """Called after each epoch, before its checkpoint, with the mean loss of each of its steps (steps,)."""

    def run_finished(self, result: "TrainResult", pictures: Sequence[Path]) -> None:
        """Called once, after the results and the pictures have been written."""


class Observers(Observer):
    """Passes all events on to several observers."""

    def __init__(self, *observers: Observer) -> None:
        for event in [name for name in vars(Observer) if not name.startswith("_")]:
            methods = [getattr(one, event) for one in observers]
            setattr(self, event, lambda *arguments, methods=methods: [method(*arguments) for method in methods])
