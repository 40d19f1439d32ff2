"""The reference training run for your hardware: one Accelerate loop that trains, evaluates and proves itself.

    from mnist_accel import TrainConfig
    from mnist_accel import train
    result = train(TrainConfig(epochs=1))

The names below are loaded when they are first used, so that the command line can answer without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_accel.api import predict
    from mnist_accel.config.settings import EvaluateConfig, TrainConfig
    from mnist_accel.errors import UserError
    from mnist_accel.pictures.predict import PictureResult
    from mnist_accel.training.evaluate import EvaluateResult, evaluate
    from mnist_accel.training.train import TrainResult, train

__version__ = "0.1.0"

_HOMES = {
    "EvaluateConfig": "config.settings",
    "EvaluateResult": "training.evaluate",
    "PictureResult": "pictures.predict",
    "TrainConfig": "config.settings",
    "TrainResult": "training.train",
    "UserError": "errors",
    "evaluate": "training.evaluate",
    "predict": "api",
    "train": "training.train",
}

__all__ = [
    "EvaluateConfig",
    "EvaluateResult",
    "PictureResult",
    "TrainConfig",
    "TrainResult",
    "UserError",
    "evaluate",
    "predict",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
