"""The Python API: `train`, `evaluate` and `predict`. The commands of the same names call these functions."""

from __future__ import annotations

from mnist_accel.pictures.predict import predict
from mnist_accel.training.evaluate import evaluate
from mnist_accel.training.train import train

__all__ = ["evaluate", "predict", "train"]
