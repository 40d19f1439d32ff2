"""One evaluation of saved weights from its configuration to its figures and pictures: `evaluate`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from mnist_accel.config.setting import is_of_form
from mnist_accel.config.settings import DATASET_FORMS, DATASETS, EvaluateConfig
from mnist_accel.data.batches import InputPipeline
from mnist_accel.errors import UserError, WeightsError, did_you_mean
from mnist_accel.files import atomic as files
from mnist_accel.files import run_record as runlog
from mnist_accel.hardware.accelerator import start_hardware
from mnist_accel.models import classifier
from mnist_accel.training import metrics
from mnist_accel.training.events import Observer, Silence
from mnist_accel.training.train import load_data, prepare_output

CONFUSION_FILE = "confusion_matrix.png"
MISTAKES_FILE = "mistakes.png"
RESULT_FILES = (CONFUSION_FILE, MISTAKES_FILE)


@dataclass(frozen=True)
class EvaluateResult:
    """What an evaluation finds; the fields are the keys of `--json`.

    Attributes:
        accuracy_ci95: Wilson's interval.
        loss: mean cross entropy in nats.
        per_class: class, precision, recall, f1, samples of each.
        confusion_matrix: rows are true classes, columns predicted ones.
    """

    dataset: str
    samples: int
    correct: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    loss: float
    per_class: list[dict[str, Any]]
    confusion_matrix: list[list[int]]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def evaluate(config: EvaluateConfig | None = None, observer: Observer | None = None) -> EvaluateResult:
    """Test saved weights, and leave pictures of the confusion matrix and the worst mistakes in `config.output_dir`.

    Every process of a distributed run calls this; the main process alone writes.

    Raises:
        UserError: the weights, the data or the machine do not allow it.
    """
    config = config or EvaluateConfig()
    observer = observer or Silence()
    loaded = classifier.load(config.weights, torch.device("cpu"))  # Accelerate moves it to where the run computes
    chosen = dataset_name(config, loaded.trained_on)
    if loaded.architecture is None and config.mixed_precision in ("bf16", "fp16"):
        raise UserError(
            f"--mixed-precision {config.mixed_precision}: {config.weights} computes in float32, as it was exported",
            "leave the option out",
        )

    machine = start_hardware(
        cpu=config.cpu,
        mixed_precision=config.mixed_precision,
        threads=config.threads,
        timeout=config.timeout,
        processes=config.processes,
    )
    prepare_output(config.output_dir, machine)
    dataset = load_data(chosen, config.data_dir, machine, observer)
    if len(loaded.class_names) != len(dataset.class_names):
        raise WeightsError(
            f"{config.weights}: tells {len(loaded.class_names)} classes apart, {dataset.name} has "
            f"{len(dataset.class_names)}",
            "name the --dataset that it was trained on",
        )
    prepared = machine.accelerator.prepare_model(loaded.model, evaluation_mode=True)
    pipeline = InputPipeline(dataset.test, machine.device, loaded.dtype)
    predictions = metrics.evaluate(prepared, pipeline, machine, config.batch_size)

    if not math.isfinite(predictions.loss):
        raise WeightsError(f"{config.weights}: these weights give infinite losses, or none at all", "train them again")

    confusion = metrics.confusion_matrix(predictions, len(dataset.class_names))
    if machine.is_main:
        from mnist_accel.reports import plots  # here, so that errors above need not wait for Matplotlib

        files.publish(
            {
                config.output_dir / CONFUSION_FILE: plots.confusion_matrix(
                    confusion, dataset.class_names, dataset.name
                ),
                config.output_dir / MISTAKES_FILE: plots.worst_mistakes(
                    dataset.test, predictions, dataset.class_names, dataset.name
                ),
            }
        )
    return EvaluateResult(
        dataset=dataset.name,
        samples=len(predictions),
        correct=predictions.correct,
        accuracy=predictions.accuracy,
        accuracy_ci95=metrics.wilson_interval(predictions.correct, len(predictions)),
        loss=predictions.loss,
        per_class=metrics.per_class(confusion, dataset.class_names),
        confusion_matrix=confusion.tolist(),
    )


def dataset_name(config: EvaluateConfig, trained_on: str | None) -> str:
    """The data set to test on: the one asked for, else the one that the weights are of; never a fallback."""
    name = config.dataset or trained_on
    if name is None:
        raise UserError(
            f"there is no {runlog.record_path(config.weights)} to say which data these weights are for",
            f"give --dataset {'|'.join(DATASETS[1:])}",
        )
    if name not in DATASETS[1:] and not is_of_form(name, DATASET_FORMS):
        raise WeightsError(
            f"{runlog.record_path(config.weights)} names an unknown data set {name!r}", did_you_mean(name, DATASETS[1:])
        )
    if name == "mnist-5k" and trained_on == "mnist":
        raise UserError(
            f"--dataset mnist-5k: {config.weights} was trained on MNIST, of whose training images mnist-5k is made",
            "evaluate it on --dataset mnist",
        )
    return name
