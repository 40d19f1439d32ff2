"""The events of a run that observers hear, and the facts and figures that they carry."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mnist_accel.training.setup import Setup
    from mnist_accel.training.train import TrainResult


@dataclass(frozen=True)
class EpochRecord:
    """The figures of one finished epoch: one line of metrics.jsonl.

    Attributes:
        epoch: counted from 1.
        train_loss: mean cross entropy in nats over the epoch. Each sample counts with the loss of the step that
            trained on it, with dropout and augmentation.
        train_accuracy: likewise.
        test_loss: mean cross entropy in nats on the test set after the epoch; None with held-out validation samples,
            because the test set is then used once, after the last epoch.
        test_accuracy: share of correct predictions on the test set after the epoch, or None.
        lr: learning rate of the last step of the epoch.
        images_per_second: training samples divided by `train_seconds`.
        train_seconds: time of the training steps, without evaluation.
        validation_loss: on the held-out samples after the epoch, or None without them.
        validation_accuracy: likewise.
    """

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False)

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    images_per_second: float
    train_seconds: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of a run that are known before its first step. The panel, the result and the record show them.

    Attributes:
        settings: the whole configuration as JSON values.
        class_names: names of the labels, in the order of the model's outputs.
        source: folder or package that the data set was read from.
        checksums: of the data files, by name.
        parameters: number of trained parameters.
        steps_per_epoch: optimizer steps.
        exchange: how processes exchange gradients; empty for one process.
        threads: CPU threads of each process.
        precision_reason: why this precision, in words.
    """

    model: str
    recipe: str
    settings: Mapping[str, Any]
    dataset: str
    class_names: tuple[str, ...]
    source: str
    checksums: Mapping[str, str]
    train_samples: int
    validation_samples: int
    test_samples: int
    parameters: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    world_size: int
    exchange: str
    device: str
    device_name: str
    cpu: str
    threads: int
    mixed_precision: str
    precision_reason: str
    output_dir: str


class Observer:
    """Listens to a training run; this one does nothing. Methods are called on every process, in this order."""

    def notice(self, text: str) -> None:
        """A message for the user, at any time."""

    def part_started(self, name: str) -> None:
        """From now on the time goes into "start-up", "data", "steps", "evaluation", "checkpoints" or "pictures"."""

    def run_prepared(self, setup: "Setup") -> None:
        """Called once, before `run_started`, with the objects that the loop works on."""

    def run_started(self, facts: RunFacts) -> None:
        """Called once, before the first step."""

    def epoch_started(self, epoch: int, step: int) -> None:
        """Both count from 0; `step` is the first step of the epoch that this run makes."""

    def step_finished(self, step: int, sums: Tensor) -> None:
        """`step` counts from 0 in its epoch. `sums` (3, steps) are this process's; see `Progress`.

        Reading them waits for the device, so read them rarely.
        """

    def epoch_finished(self, record: EpochRecord, step_losses: npt.NDArray[np.float32]) -> None:
        """Called after each epoch, before its checkpoint, with the mean loss of each of its steps (steps,)."""

    def run_finished(self, result: "TrainResult", pictures: "Sequence[Path]") -> None:
        """Called once, after the results and the pictures have been written."""


class Observers(Observer):
    """Passes all events on to several observers."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def notice(self, text: str) -> None:
        for observer in self.observers:
            observer.notice(text)

    def part_started(self, name: str) -> None:
        for observer in self.observers:
            observer.part_started(name)

    def run_prepared(self, setup: "Setup") -> None:
        for observer in self.observers:
            observer.run_prepared(setup)

    def run_started(self, facts: RunFacts) -> None:
        for observer in self.observers:
            observer.run_started(facts)

    def epoch_started(self, epoch: int, step: int) -> None:
        for observer in self.observers:
            observer.epoch_started(epoch, step)

    def step_finished(self, step: int, sums: Tensor) -> None:
        for observer in self.observers:
            observer.step_finished(step, sums)

    def epoch_finished(self, record: EpochRecord, step_losses: npt.NDArray[np.float32]) -> None:
        for observer in self.observers:
            observer.epoch_finished(record, step_losses)

    def run_finished(self, result: "TrainResult", pictures: "Sequence[Path]") -> None:
        for observer in self.observers:
            observer.run_finished(result, pictures)
