"""One training run from its configuration to its files: `train`."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import datasets as data
from mnist_accel.data.datasets import DataSet, Digits
from mnist_accel.errors import DataError
from mnist_accel.files import atomic as files
from mnist_accel.files import checkpoint, weights
from mnist_accel.files import run_record as runlog
from mnist_accel.hardware.accelerator import Hardware, start_hardware
from mnist_accel.hardware.cpu import cpu_name
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import architectures as models
from mnist_accel.training import loop as engine
from mnist_accel.training import state as snapshot
from mnist_accel.training.events import EpochRecord, Observer, Plan, Silence
from mnist_accel.training.guard import Guard, NumbersError

WEIGHTS_FILE = "mnist_cnn_model.pth"
METRICS_FILE = "metrics.jsonl"
HISTORY_FILE = "training_history.png"
PREDICTIONS_FILE = "predictions.png"
RESULT_FILES = (WEIGHTS_FILE, "mnist_cnn_model.json", METRICS_FILE, HISTORY_FILE, PREDICTIONS_FILE)


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with; the fields are the keys of `--json`.

    Attributes:
        steps: optimizer steps of the whole run.
        train_accuracy: running average over the last epoch, under dropout; test_accuracy is of the final weights.
        train_seconds: training clock: all epochs, without loading, evaluation and pictures.
        images_per_second: of the last epoch.
        wall_seconds: of the whole call.
        chosen_epoch: whose weights are the final ones: the last, but for `select` "best".
        history: a record an epoch.
    """

    dataset: str
    train_samples: int
    test_samples: int
    model: str
    recipe: str
    epochs: int
    steps: int
    world_size: int
    device: str
    mixed_precision: str
    threads: int
    batch_size: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    train_seconds: float
    images_per_second: float
    wall_seconds: float
    output_dir: str
    weights_sha256: str
    chosen_epoch: int
    history: tuple[EpochRecord, ...] = dataclasses.field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """All but the history and the chosen epoch, which the files tell."""
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in ("history", "chosen_epoch")}


def train(config: TrainConfig | None = None, observer: Observer | None = None) -> TrainResult:
    """Train as `config` says and leave weights, record, metrics and pictures in `config.output_dir`.

    Every process of a distributed run calls this; the main process alone writes. Files of an earlier run in the same
    folder are replaced only when this run has succeeded.

    Args:
        config: the settings; the default recipe when left out.
        observer: told what happens; nothing is printed without one.

    Raises:
        UserError: the machine, the data or the output folder does not allow it.
    """
    began = time.perf_counter()
    config = config or TrainConfig()
    observer = observer or Silence()
    stop = StopRequests()
    machine = start_hardware(
        cpu=config.cpu,
        mixed_precision=config.mixed_precision,
        threads=config.threads,
        timeout=config.timeout,
        processes=config.processes,
        dtype=config.dtype,
        compiled=config.compile,
        accumulation_steps=config.gradient_accumulation_steps,
    )
    prepare_output(config.output_dir, machine)
    dataset = load_data(config.dataset, config.data_dir, machine, observer)
    dataset, validation = _split(config, dataset)
    who = snapshot.identity(config, machine, dataset)
    together = {"resume": config.resume, "checkpoint_every": config.checkpoint_every, "compile": config.compile}
    machine.require_same(who | together, "give every process the same settings")
    training = engine.prepare(config, machine, dataset, validation)
    with stop:
        guard = Guard(config, who, stop, observer)
        progress = guard.resume(training)
        observer.run_started(_plan(config, machine, dataset, training))
        trained = engine.fit(training, progress, observer, guard)

    final, tested = trained.history[-1], trained.predictions
    content = weights.serialise(training.result)  # the same bytes on every process
    result = TrainResult(
        dataset=dataset.name,
        train_samples=len(dataset.train),
        test_samples=len(dataset.test),
        model=config.model,
        recipe=config.recipe,
        epochs=final.epoch,
        steps=final.epoch * training.steps_per_epoch,
        world_size=machine.world_size,
        device=machine.device.type,
        mixed_precision=machine.mixed_precision,
        threads=machine.threads,
        batch_size=config.batch_size,
        train_loss=final.train_loss,
        train_accuracy=final.train_accuracy,
        test_loss=tested.loss,
        test_accuracy=tested.accuracy,
        train_seconds=sum(record.train_seconds for record in trained.history),
        images_per_second=final.images_per_second,
        wall_seconds=time.perf_counter() - began,
        output_dir=str(config.output_dir),
        weights_sha256=weights.sha256(content),
        chosen_epoch=trained.chosen_epoch,
        history=tuple(trained.history),
    )
    if not math.isfinite(result.test_loss):
        raise NumbersError("the final weights give an infinite test loss, or none that is a number", "lower --lr")

    def publish() -> None:
        if machine.is_main:
            _publish(config, machine, dataset, trained, result, content)
            checkpoint.clear(config.output_dir / checkpoint.FOLDER)

    machine.together(publish)
    return dataclasses.replace(result, wall_seconds=time.perf_counter() - began)


def prepare_output(folder: Path, machine: Hardware) -> None:
    """Make sure, before any work, that the main process can write results."""
    machine.together(lambda: files.require_writable(folder) if machine.is_main else None)


def load_data(name: str, data_dir: Path, machine: Hardware, observer: Observer) -> DataSet:
    """A data set that is the same on every process.

    Raises:
        UserError: it cannot be had, or two machines found different ones.
    """
    dataset = machine.together(lambda: data.load(name, data_dir, observer.notice, observer.download))
    machine.require_same(
        {"data set": data.fingerprint(dataset)},
        f"put the same files into {data_dir} on each machine, or name --dataset",
    )
    if dataset.notice:
        observer.notice(dataset.notice)
    return dataset


def _split(config: TrainConfig, dataset: DataSet) -> tuple[DataSet, Digits | None]:
    """The data set with the training samples that are asked for, and those held out from them before."""
    train, validation = dataset.train, None
    if config.validation_samples:
        validation, train = data.split_off(train, config.validation_samples, config.seed, "--validation-samples")
    if config.train_samples:
        train, _ = data.split_off(train, config.train_samples, config.seed, "--train-samples")
    if not len(train):
        raise DataError(f"--validation-samples {config.validation_samples}: nothing is left to train on", "give fewer")
    return dataclasses.replace(dataset, train=train), validation


def _plan(config: TrainConfig, machine: Hardware, dataset: DataSet, training: engine.Training) -> Plan:
    steps, world_size = training.steps_per_epoch, machine.world_size
    accumulation = config.gradient_accumulation_steps
    share = config.batch_size / (world_size * accumulation)
    parts = f"{world_size} process{'es' if world_size > 1 else ''} × {accumulation} accumulation × {share:g}"
    precision = {"no": "fp32" if config.dtype == "float32" else "fp64"}.get(
        machine.mixed_precision, machine.mixed_precision
    )
    facts = {
        "model": f"{config.model}, {models.parameter_count(training.module):,} parameters",
        "recipe": f"{config.recipe}: epochs {config.epochs}, Adam, learning rate {config.lr:g}"
        + (" at the peak of one cycle" if config.schedule == "one-cycle" else "")
        + (", images distorted" if training.augment.is_on else "")
        + (", averaged weights" if training.average else "")
        + f", seed {config.seed}",
        "data": f"{dataset.name}: {len(dataset.train):,} training, {len(dataset.test):,} test images "
        f"from {dataset.source}"
        + (f"; {len(training.validation):,} more held out to choose by" if training.validation else ""),
        "device": f"{machine.device.type}: {machine.device_name}",
        "processes": f"{world_size}, each with {machine.threads} CPU thread{'s' if machine.threads > 1 else ''}"
        + (f"; gradients go through {training.exchange}" if training.exchange else ""),
        "precision": f"{precision} ({machine.precision_reason})" + (", compiled" if config.compile else ""),
        "batch": f"{config.batch_size} samples a step = {parts}; {steps:,} steps an epoch",
        "checkpoint": (f"every {config.checkpoint_every} steps" if config.checkpoint_every else "after each epoch")
        + f", the newest {config.keep} are kept",
        "output": str(config.output_dir.absolute()),
    }
    return Plan(facts, config.epochs, steps, config.batch_size, len(dataset.train))


def _publish(
    config: TrainConfig,
    machine: Hardware,
    dataset: DataSet,
    trained: engine.Trained,
    result: TrainResult,
    content: bytes,
) -> None:
    """Write all results, together."""
    from mnist_accel.reports import (
        plots,  # Matplotlib takes a third of a second, which the first step need not wait for
    )

    record = {
        "model": config.model,
        "recipe": config.recipe,
        "config": runlog.config_facts(config),
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "train_samples": len(dataset.train),
            "test_samples": len(dataset.test),
            "class_names": list(dataset.class_names),
            "checksums": dict(dataset.checksums),
            "notice": dataset.notice,
        },
        "versions": runlog.versions(),
        "git_commit": runlog.git_commit(),
        "device": machine.device.type,
        "device_name": machine.device_name,
        "cpu": cpu_name(),
        "threads": machine.threads,
        "world_size": machine.world_size,
        "mixed_precision": machine.mixed_precision,
        "metrics": dataclasses.asdict(trained.history[trained.chosen_epoch - 1])
        | {"test_loss": result.test_loss, "test_accuracy": result.test_accuracy},
        "weights_sha256": result.weights_sha256,
    }
    folder = config.output_dir
    files.publish(
        {
            folder / HISTORY_FILE: plots.training_history(trained.history, dataset.name, result.test_accuracy),
            folder / PREDICTIONS_FILE: plots.sample_predictions(
                dataset.test, trained.predictions, dataset.class_names, dataset.name, config.seed
            ),
            folder / METRICS_FILE: runlog.history_lines(trained.history),
            folder / WEIGHTS_FILE: content,
            runlog.record_path(folder / WEIGHTS_FILE): runlog.record_bytes(record),
        }
    )
