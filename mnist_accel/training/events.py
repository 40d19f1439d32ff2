"""What a run tells the outside while it goes on, and who may listen. The engine knows nothing more of the outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch: a line of metrics.jsonl.

    Attributes:
        epoch: from 1.
        train_loss: mean cross entropy in nats over the epoch, each sample as it was trained on: under dropout, and by
            the weights of that moment.
        train_accuracy: likewise.
        test_loss: mean cross entropy in nats after the epoch; None where samples are held out to choose by, for then
            the test set is used once, after the last epoch.
        test_accuracy: share of the test set that is right after the epoch; likewise.
        lr: learning rate of the epoch's last step.
        images_per_second: training samples over `train_seconds`.
        train_seconds: the epoch's training clock, without the evaluation.
        validation_loss: of the held-out samples, after the epoch.
        validation_accuracy: likewise.
    """

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


@dataclass(frozen=True)
class Plan:
    """What will run, said before it runs.

    Attributes:
        facts: name and value of each fact, for people.
    """

    facts: dict[str, str]
    epochs: int
    steps_per_epoch: int
    batch_size: int
    train_samples: int


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


@dataclass
class StepSums:
    """Sums over this process' part of each step of an epoch, on the device: reading them waits for it.

    Attributes:
        table: (3, steps): summed cross entropy; right predictions; 1 from the first step that met a bad number on.
        samples: how many samples they stand for so far.
    """

    table: Tensor
    samples: int = 0

    @property
    def losses(self) -> Tensor:
        return self.table[0]

    @property
    def correct(self) -> Tensor:
        return self.table[1]

    @property
    def bad(self) -> Tensor:
        return self.table[2]


class Observer(Protocol):
    """Listens to a training run. Methods are called on every process, in this order."""

    def notice(self, text: str) -> None:
        """Something that the user should know, at any time."""

    def download(self, file: str, received: int, total: int | None) -> None:
        """`received` of `total` bytes of a file have come."""

    def run_started(self, plan: Plan) -> None: ...

    def epoch_started(self, epoch: int, step: int) -> None:
        """Both count from 0; `step` is the first that this run makes in the epoch."""

    def step_finished(self, step: int, sums: StepSums) -> None:
        """`step` counts from 0 in its epoch. Reading `sums` waits for the device: do so rarely."""

    def epoch_finished(self, record: EpochRecord) -> None: ...


class Silence:
    """An observer that says nothing: for Python callers, and for every process but the main one."""

    def notice(self, text: str) -> None: ...

    def download(self, file: str, received: int, total: int | None) -> None: ...

    def run_started(self, plan: Plan) -> None: ...

    def epoch_started(self, epoch: int, step: int) -> None: ...

    def step_finished(self, step: int, sums: StepSums) -> None: ...

    def epoch_finished(self, record: EpochRecord) -> None: ...
