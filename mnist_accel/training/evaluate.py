"""One evaluation of saved weights, from its configuration to its figures."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mnist_accel.config.settings import DATASETS, EvaluateConfig, TrainConfig
from mnist_accel.data.batches import InputPipeline
from mnist_accel.data.digits import DataSet, fold
from mnist_accel.errors import UserError, WeightsError, printable
from mnist_accel.files.atomic import exists
from mnist_accel.files.run_record import read_record, record_path
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.models import classifier
from mnist_accel.training import metrics
from mnist_accel.training.events import Observer
from mnist_accel.training.metrics import Predictions
from mnist_accel.training.train import load_data, start


@dataclass(frozen=True)
class EvaluateResult:
    """The figures of an evaluation; the fields are the keys of `--json`."""

    dataset: str
    samples: int
    correct: int
    accuracy: float
    accuracy_ci95: tuple[float, float]  # 95% Wilson interval
    loss: float  # mean cross entropy in nats
    per_class: list[dict[str, Any]]  # class, precision, recall, f1 and samples of each class
    confusion_matrix: list[list[int]]  # rows are true classes, columns predicted ones


def run_evaluation(config: EvaluateConfig, observer: Observer) -> tuple[EvaluateResult, Hardware, DataSet, Predictions]:
    """Evaluate saved weights on a test set; see `api.evaluate`. The pictures need all that this returns."""
    model = classifier.load(config.weights, torch.device("cpu"), config.model)  # Accelerate moves it
    name = config.dataset or model.trained_on
    if name is None:
        text = f"there is no {record_path(config.weights)} that names the data set of these weights"
        raise UserError(text, f"give --dataset {'|'.join(DATASETS)}")
    if model.architecture is None and config.mixed_precision in ("bf16", "fp16"):
        problem = f"--mixed-precision {config.mixed_precision}: {config.weights} computes in float32"
        raise UserError(problem, "leave the option out")
    hardware = start(config)
    trained_with = (read_record(config.weights) or {}).get("config", {})
    skip_damaged = config.skip_damaged or trained_with.get("skip_damaged") is True
    dataset = load_data(name, data_folder(config, trained_with), hardware, observer, skip_damaged=skip_damaged)
    if (part := TrainConfig(fold=trained_with.get("fold")).fold) and name == model.trained_on:
        dataset = fold(dataset, part)  # tests on the samples that these weights were not trained on
    require_same_classes(model, dataset)
    prepared = hardware.accelerator.prepare_model(model.model, evaluation_mode=True)
    test_data = InputPipeline(dataset.test, hardware.device, model.dtype)
    predictions = metrics.predict_dataset(prepared, test_data, hardware, config.batch_size)
    if not math.isfinite(predictions.loss):
        raise WeightsError(f"{config.weights}: the loss of these weights is infinite or no number", "train them again")
    confusion = metrics.confusion_matrix(predictions, len(dataset.class_names))
    result = EvaluateResult(
        dataset=dataset.name,
        samples=len(predictions),
        correct=predictions.correct,
        accuracy=predictions.accuracy,
        accuracy_ci95=metrics.wilson_interval(predictions.correct, len(predictions)),
        loss=predictions.loss,
        per_class=metrics.per_class(confusion, dataset.class_names),
        confusion_matrix=confusion.tolist(),
    )
    return result, hardware, dataset, predictions


def data_folder(config: EvaluateConfig, trained_with: dict[str, Any]) -> Path:
    """`--data-dir`; without it, the folder that the weights were `trained_with`, if that is there."""
    folder = Path(str(trained_with.get("data_dir", config.data_dir)))
    return folder if "data_dir" not in config.model_fields_set and exists(folder) else config.data_dir


def require_same_classes(model: classifier.Classifier, dataset: DataSet) -> None:
    """Raise WeightsError where the classes of the weights are not those of the data set.

    IDX files name no classes, and weights without a record do not either; then only their number is compared.
    """
    has_names = model.trained_on is not None and "idx:" not in f"{model.trained_on} {dataset.name}"
    here, there = model.class_names, dataset.class_names
    if len(here) != len(there) or (has_names and here != there):
        counts = [f"{len(names)} classes ({printable(', '.join(names), 60)})" for names in (here, there)]
        problem = f"{model.path}: has {counts[0]}; {dataset.name} has {counts[1]}"
        raise WeightsError(problem, "name the --dataset that it was trained on")
