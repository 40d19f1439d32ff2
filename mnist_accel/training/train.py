"""One training run, from its configuration to its weights, record and figures."""

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_accel.config.settings import RunConfig, TrainConfig
from mnist_accel.data import datasets, digits
from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.errors import DataError
from mnist_accel.files import atomic, run_record, weights
from mnist_accel.hardware.accelerator import Hardware, start_hardware
from mnist_accel.hardware.cpu import cpu_name
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import architectures
from mnist_accel.training import loop
from mnist_accel.training.bad_numbers import NumbersError
from mnist_accel.training.events import EpochRecord, Observer, RunFacts
from mnist_accel.training.guard import Guard
from mnist_accel.training.metrics import Predictions
from mnist_accel.training.setup import Progress, Setup, prepare
from mnist_accel.training.state import identity


@dataclass(frozen=True, kw_only=True)
class TrainResult(RunFacts):
    """The outcome of a training run.

    Attributes:
        epochs: finished epochs; fewer than asked for after an early stop.
        steps: optimizer steps of the whole run.
        train_loss: running average over the last epoch, as `train_accuracy` is.
        test_accuracy: of the final weights, as `test_loss` is.
        train_seconds: time of all training steps, without loading, evaluation and pictures.
        images_per_second: of the last epoch.
        wall_seconds: of the whole call.
        chosen_epoch: the epoch whose weights are the final ones.
        history: one record per epoch.
        step_losses: mean training loss of each step.
    """

    steps: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    train_seconds: float
    images_per_second: float
    wall_seconds: float
    weights_sha256: str
    chosen_epoch: int
    history: tuple[EpochRecord, ...] = dataclasses.field(repr=False)
    step_losses: tuple[float, ...] = dataclasses.field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """The values of `--json`: everything that is not in the run's files."""
        in_files = ("settings", "class_names", "source", "checksums", "history", "step_losses")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in in_files}


@dataclass(frozen=True)
class FinishedRun:
    """A run whose weights are written, for those who draw its pictures.

    Attributes:
        predictions: of the final weights on the test set.
    """

    hardware: Hardware
    result: TrainResult
    dataset: DataSet
    predictions: Predictions


def run_training(config: TrainConfig, observer: Observer, stop: StopRequests) -> FinishedRun:
    """Train as `config` says, and write weights, record and figures into `config.output_dir`.

    Every process of a distributed run calls this; the main process alone writes. The files of an earlier run in the
    same folder are replaced only when this run has succeeded.

    Raises:
        UserError: the machine, the data or the output folder does not allow it.
    """
    began = time.perf_counter()
    hardware = start(config)
    prepare_output(config.output_dir, hardware)
    dataset, validation = split(config, load_data(config.dataset, config.data_dir, hardware, observer))
    who = identity(config, hardware, dataset)
    same = {"resume": config.resume, "checkpoint_every": config.checkpoint_every, "compile": config.compile}
    hardware.require_same(who | same, "give every process the same settings")
    setup = prepare(config, hardware, dataset, validation)
    with stop, hardware.watching():
        guard = Guard(config, who, stop, observer)
        progress = guard.resume(setup)
        facts = run_facts(setup, dataset)
        observer.run_started(facts)
        fitted = loop.fit(setup, progress, observer, guard)
    content = weights.serialise(setup.final_module)  # the same bytes on every process
    result = train_result(facts, progress, fitted, weights.sha256(content), time.perf_counter() - began)
    warn_of_doubtful_result(result, observer)

    def publish() -> None:
        if hardware.is_main:
            write_results(config.output_dir, result, content)
            guard.checkpoints.clear()
            guard.epoch_log.unlink(missing_ok=True)

    hardware.together(publish)
    return FinishedRun(hardware, result, dataset, fitted.predictions)


def start(config: RunConfig) -> Hardware:
    """Bring up the hardware that `config` asks for."""
    common: dict[str, Any] = {
        name: getattr(config, name) for name in ("cpu", "mixed_precision", "threads", "timeout", "processes")
    }
    if isinstance(config, TrainConfig):
        common |= {
            "dtype": config.dtype,
            "compiled": config.compile,
            "accumulation_steps": config.gradient_accumulation_steps,
            "speedups": config.speedups,
        }
    return start_hardware(**common)


def prepare_output(folder: Path, hardware: Hardware) -> None:
    """Make sure, before any work, that the main process can write results."""
    hardware.together(lambda: atomic.require_writable(folder) if hardware.is_main else None)


def load_data(name: str, data_dir: Path, hardware: Hardware, observer: Observer) -> DataSet:
    """The data set `name`, the same on every process.

    Raises:
        UserError: it is not available, or two machines found different ones.
    """
    dataset = hardware.together(lambda: datasets.load(name, data_dir, observer.notice))
    hardware.require_same(
        {"data set": digits.fingerprint(dataset)},
        f"put the same files into {data_dir} on each machine, or name another --dataset",
    )
    return dataset


def split(config: TrainConfig, dataset: DataSet) -> tuple[DataSet, Digits | None]:
    """The data set with the training samples that `config` asks for, and the held-out validation samples."""
    train, validation = dataset.train, None
    if config.validation_samples:
        validation, train = digits.split_off(train, config.validation_samples, config.seed, "--validation-samples")
    if config.train_samples:
        train, _ = digits.split_off(train, config.train_samples, config.seed, "--train-samples")
    if not len(train):
        raise DataError(f"--validation-samples {config.validation_samples}: no training samples are left", "give fewer")
    return dataclasses.replace(dataset, train=train), validation


def run_facts(setup: Setup, dataset: DataSet) -> RunFacts:
    """The facts of the run that are known before its first step."""
    config, hardware = setup.config, setup.hardware
    return RunFacts(
        model=config.model,
        recipe=config.recipe,
        settings=config.as_json(),
        dataset=dataset.name,
        class_names=dataset.class_names,
        source=dataset.source,
        checksums=dict(dataset.checksums),
        train_samples=len(dataset.train),
        validation_samples=len(setup.validation_data) if setup.validation_data else 0,
        test_samples=len(dataset.test),
        parameters=architectures.parameter_count(setup.module),
        epochs=config.epochs,
        steps_per_epoch=setup.steps_per_epoch,
        batch_size=config.batch_size,
        world_size=hardware.world_size,
        exchange=setup.exchange,
        device=hardware.device.type,
        device_name=hardware.device_name,
        cpu=cpu_name(),
        threads=hardware.threads,
        mixed_precision=hardware.mixed_precision,
        precision_reason=hardware.precision_reason,
        output_dir=str(config.output_dir),
    )


def train_result(
    facts: RunFacts, progress: Progress, fitted: loop.FitResult, sha256: str, wall_seconds: float
) -> TrainResult:
    """The result of a run that has finished."""
    last, predictions = progress.history[-1], fitted.predictions
    if not math.isfinite(predictions.loss):
        raise NumbersError("the final weights give a test loss that is infinite or not a number", "lower --lr")
    return TrainResult(
        **vars(facts) | {"epochs": last.epoch},
        steps=last.epoch * facts.steps_per_epoch,
        train_loss=last.train_loss,
        train_accuracy=last.train_accuracy,
        test_loss=predictions.loss,
        test_accuracy=predictions.accuracy,
        train_seconds=sum(record.train_seconds for record in progress.history),
        images_per_second=last.images_per_second,
        wall_seconds=wall_seconds,
        weights_sha256=sha256,
        chosen_epoch=fitted.final_epoch,
        history=tuple(progress.history),
        step_losses=tuple(progress.step_losses.tolist()),
    )


def warn_of_doubtful_result(result: TrainResult, observer: Observer) -> None:
    """Tell the user about settings that trained, but cannot have been meant."""
    if result.batch_size > result.train_samples:
        observer.notice(
            f"--batch-size {result.batch_size} is larger than the {result.train_samples} training samples: "
            "each epoch is one step"
        )
    if result.test_accuracy < 1.2 / len(result.class_names):
        observer.notice(
            f"test accuracy {result.test_accuracy:.2%} is no better than guessing; lower --lr, or train longer"
        )


def write_results(folder: Path, result: TrainResult, content: bytes) -> None:
    """Write weights, record, figures and step losses, together."""
    last = result.history[result.chosen_epoch - 1]
    final = {"test_loss": result.test_loss, "test_accuracy": result.test_accuracy}
    copied = ("model", "recipe", "device", "device_name", "cpu", "threads", "world_size", "mixed_precision")
    data = ("source", "train_samples", "test_samples", "class_names", "checksums")
    record = {name: getattr(result, name) for name in copied} | {
        "config": result.settings,
        "dataset": {"name": result.dataset} | {name: getattr(result, name) for name in data},
        "versions": run_record.versions(),
        "git_commit": run_record.git_commit(),
        "metrics": dataclasses.asdict(last) | final,
        "weights_sha256": result.weights_sha256,
    }
    weights_path = folder / run_record.WEIGHTS_FILE
    atomic.publish(
        {
            folder / run_record.METRICS_FILE: run_record.history_lines(result.history),
            folder / run_record.STEP_LOSSES_FILE: run_record.step_loss_lines(
                result.step_losses, result.steps_per_epoch
            ),
            weights_path: content,
            run_record.record_path(weights_path): run_record.record_bytes(record),
        }
    )
