"""Exact figures: every sample counts once over all processes, and sums are divided once, at the end."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mnist_accel.data.batches import InputPipeline
from mnist_accel.hardware.accelerator import Hardware


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for a whole data set of N samples, in its order."""

    labels: npt.NDArray[np.int64]  # true classes (N,)
    predicted: npt.NDArray[np.int64]  # most probable classes (N,)
    probability: npt.NDArray[np.float64]  # of the predicted classes (N,)
    losses: npt.NDArray[np.float64]  # cross entropy of each sample in nats (N,)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> int:
        return int((self.predicted == self.labels).sum())

    @property
    def accuracy(self) -> float:
        return self.correct / len(self)

    @property
    def loss(self) -> float:
        """Mean cross entropy in nats."""
        return math.fsum(self.losses) / len(self)

    @property
    def mistakes(self) -> npt.NDArray[np.int64]:
        """Indices of the wrong predictions, the most confident first."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        return wrong[np.argsort(-self.probability[wrong], kind="stable")]


def exact_type(device: torch.device) -> torch.dtype:
    """The type for sums: float64, which keeps the last digits of float64 models; Apple's GPUs do not have it."""
    return torch.float32 if device.type == "mps" else torch.float64


@torch.inference_mode()
def predict_dataset(
    model: nn.Module, data: InputPipeline, hardware: Hardware, batch_size: int | None = None
) -> Predictions:
    """Predict every sample of a data set. Each process predicts a share, and every process gets all predictions.

    `model`, images (B, 1, 28, 28) → logits (B, classes), is not the wrapper that exchanges gradients, because the
    shares of two processes may differ by a batch. It is left in evaluation mode. All processes together compute
    `batch_size` samples at once, by default 250 on a CPU, else 1000. Raises RuntimeError if a sample was counted twice
    or not at all.
    """
    model.eval()
    samples, rank, world_size = len(data), hardware.rank, hardware.world_size
    first, last = rank * samples // world_size, (rank + 1) * samples // world_size
    dtype = exact_type(data.device)
    # One column per sample: times seen, predicted class, probability, loss. Other processes' columns stay 0.
    table = torch.zeros(4, samples, device=data.device, dtype=dtype)
    # The activations of 1000 samples do not fit into the caches of a CPU.
    batch_size = batch_size or (250 if data.device.type == "cpu" else 1000)
    local_batch_size = max(1, batch_size // world_size)
    for start in range(first, last, local_batch_size):
        here = slice(start, min(start + local_batch_size, last))
        images, labels = data.batch(here)
        log_probabilities = model(images).log_softmax(dim=1)
        highest, predicted = log_probabilities.max(dim=1)
        losses = -log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
        table[:, here] += torch.stack([torch.ones_like(losses), predicted, highest.exp(), losses]).to(dtype)
    seen, predicted, probability, losses = hardware.accelerator.reduce(table, "sum").cpu().double().numpy()
    if not (seen == 1).all():
        raise RuntimeError(f"{int((seen != 1).sum())} of {samples} samples were not counted exactly once")
    return Predictions(data.labels.cpu().numpy(), predicted.astype(np.int64), probability, losses)


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """95% confidence interval of an accuracy. Source: E. B. Wilson, JASA 22 (1927), 209–212."""
    from scipy.stats import binomtest  # takes a second to import, which training need not wait for

    interval = binomtest(correct, samples).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def confusion_matrix(predictions: Predictions, classes: int) -> npt.NDArray[np.int64]:
    """Number of samples by true class (row) and predicted class (column), int64 (classes, classes)."""
    pairs = predictions.labels * classes + predictions.predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class(confusion: npt.NDArray[np.int64], class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of samples of each class; 0 where a class is absent or was never predicted."""
    hits, true, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    # Without a sample or a prediction there is no hit either, so any divisor gives 0.
    precision, recall, f1 = (hits / np.maximum(whole, 1) for whole in (predicted, true, (true + predicted) / 2))
    rows = zip(class_names, precision.tolist(), recall.tolist(), f1.tolist(), true.tolist(), strict=True)
    return [dict(zip(("class", "precision", "recall", "f1", "samples"), row, strict=True)) for row in rows]
