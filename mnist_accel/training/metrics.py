"""Exact figures: each sample counted once over all processes, sums divided once, at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mnist_accel.data.batches import InputPipeline
from mnist_accel.hardware.accelerator import Hardware

Z_95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of a data set, in its order.

    Attributes:
        labels: the truth, int64 (N,).
        predicted: the most probable class, int64 (N,).
        probability: of the predicted class, float64 (N,).
        losses: cross entropy of each sample in nats, float64 (N,).
    """

    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float64]
    losses: npt.NDArray[np.float64]

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


@torch.inference_mode()
def evaluate(model: nn.Module, pipeline: InputPipeline, hardware: Hardware, batch_size: int) -> Predictions:
    """Predict a whole data set, each process a share of it; every process gets all predictions.

    Args:
        model: images (B, 1, 28, 28) → logits (B, classes), not wrapped for gradient exchange, as shares may differ by
            a batch; left in evaluation mode.
        batch_size: samples of one forward pass over all processes.

    Raises:
        RuntimeError: a sample was counted twice or not at all.
    """
    model.eval()
    samples, rank, world_size = len(pipeline), hardware.rank, hardware.world_size
    first, last = rank * samples // world_size, (rank + 1) * samples // world_size
    # Float64 would keep the last digits of float64 models; Apple's GPUs have no such type.
    dtype = torch.float32 if pipeline.device.type == "mps" else torch.float64
    # One column a sample: times seen, predicted class, probability, loss. Other processes' columns stay 0.
    table = torch.zeros(4, samples, device=pipeline.device, dtype=dtype)
    local_batch = max(1, batch_size // world_size)
    for start in range(first, last, local_batch):
        here = slice(start, min(start + local_batch, last))
        images, labels = pipeline.batch(here)
        log_probabilities = model(images).log_softmax(dim=1)
        best, predicted = log_probabilities.max(dim=1)
        losses = -log_probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
        table[:, here] += torch.stack([torch.ones_like(losses), predicted, best.exp(), losses]).to(dtype)
    seen, predicted, probability, losses = hardware.accelerator.reduce(table, "sum").cpu().double().numpy()
    if not (seen == 1).all():
        raise RuntimeError(f"{int((seen != 1).sum())} of {samples} samples were not counted exactly once")
    return Predictions(pipeline.labels.cpu().numpy(), predicted.astype(np.int64), probability, losses)


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """95% confidence interval of an accuracy. Source: E. B. Wilson, JASA 22 (1927), 209–212."""
    p, n, z2 = correct / samples, samples, Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # At 0 and n correct the formula touches the end exactly, but for rounding.
    return (0.0 if correct == 0 else centre - half, 1.0 if correct == samples else centre + half)


def confusion_matrix(predictions: Predictions, classes: int) -> npt.NDArray[np.int64]:
    """How often each true class (row) was taken for each class (column); shape (classes, classes)."""
    pairs = predictions.labels * classes + predictions.predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def per_class(confusion: npt.NDArray[np.int64], class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of samples of each class; 0 where a class was never predicted or is absent."""
    hits, truly, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        {
            "class": name,
            "precision": float(hit / column) if column else 0.0,
            "recall": float(hit / row) if row else 0.0,
            "f1": float(2 * hit / (row + column)) if row + column else 0.0,
            "samples": int(row),
        }
        for name, hit, row, column in zip(class_names, hits, truly, said, strict=True)
    ]
