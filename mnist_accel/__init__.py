"""The reference training run for your hardware: one Accelerate loop that trains, evaluates and checks its results.

    from mnist_accel import TrainConfig, train
    result = train(TrainConfig(epochs=1))

The names below are imported when they are first used, so that the command line can answer without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_accel.api import evaluate as evaluate
    from mnist_accel.api import find_learning_rate as find_learning_rate
    from mnist_accel.api import predict as predict
    from mnist_accel.api import train as train
    from mnist_accel.config.settings import EvaluateConfig as EvaluateConfig
    from mnist_accel.config.settings import TrainConfig as TrainConfig
    from mnist_accel.errors import UserError as UserError
    from mnist_accel.groups import train_group as train_group
    from mnist_accel.pictures.predict import PictureResult as PictureResult
    from mnist_accel.reports.comparison import compare as compare
    from mnist_accel.reports.run_report import report as report
    from mnist_accel.reports.runs import Group as Group
    from mnist_accel.reports.runs import Run as Run
    from mnist_accel.training.evaluate import EvaluateResult as EvaluateResult
    from mnist_accel.training.train import TrainResult as TrainResult

__version__ = "0.1.0"

_HOMES = {
    "api": ("evaluate", "find_learning_rate", "predict", "train"),
    "config.settings": ("EvaluateConfig", "TrainConfig"),
    "errors": ("UserError",),
    "groups": ("train_group",),
    "pictures.predict": ("PictureResult",),
    "reports.comparison": ("compare",),
    "reports.run_report": ("report",),
    "reports.runs": ("Group", "Run"),
    "training.evaluate": ("EvaluateResult",),
    "training.train": ("TrainResult",),
}
__all__ = [name for names in _HOMES.values() for name in names]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
