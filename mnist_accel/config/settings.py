"""The settings of a training run and of an evaluation: types, defaults and limits; settings.toml has the meanings.

A value is taken from the caller, else from the recipe, else from the default. Values may be texts, as on a command
line. All problems are raised together, before any work: this module does not import torch.
"""

import re
from functools import partial
from pathlib import Path

from mnist_accel.config.base import OWN_NETWORK, RunConfig, count, option_name, setting, settings
from mnist_accel.errors import NO_WEIGHTS, Problem
from mnist_accel.files.atomic import exists
from mnist_accel.hardware.cores import launched_world_size

__all__ = ["DATASETS", "MODELS", "EvaluateConfig", "RunConfig", "TrainConfig", "option_name", "settings"]

EMNIST = tuple(f"emnist-{split}" for split in ("byclass", "bymerge", "balanced", "letters", "digits", "mnist"))
DATASETS = ("mnist", "fashion-mnist", "kmnist", *EMNIST)
DATASET_CHOICES = (*DATASETS, "idx:DIR", "folder:DIR", "csv:FILE", "npz:FILE")
MODELS = ("cnn", "small-cnn", "fast-cnn", "normalised-cnn", "light-cnn", "tiny-cnn")
result_setting = partial(setting, decides_result=True)
recipe_setting = partial(result_setting, on_command_line=False)


class TrainConfig(RunConfig):
    """One training run. `TrainConfig(recipe="accurate", epochs=1)` is `--recipe accurate --epochs 1`.

    Raises ConfigError with all problems of all settings.
    """

    recipe: str = setting("classic")
    dataset: str = setting("mnist", choices=DATASET_CHOICES)
    model: str = result_setting("cnn", choices=(*MODELS, OWN_NETWORK))
    batch_size: int = result_setting(128, ge=1)
    epochs: int = result_setting(5, ge=1)
    lr: float = result_setting(0.001, gt=0, le=1000)
    seed: int = result_setting(0, ge=0, le=2**31 - 1)
    train_samples: int | None = result_setting(None, ge=1)
    fold: str | None = recipe_setting(None)
    validation_samples: int | None = result_setting(None, ge=1)
    early_stop: int | None = result_setting(None, ge=1)
    select: str = result_setting("last", choices=("last", "best"))
    gradient_accumulation_steps: int = result_setting(1, ge=1)
    dropout: float = recipe_setting(0.5, ge=0, le=0.9)
    label_smoothing: float = recipe_setting(0.0, ge=0, lt=1)
    schedule: str = recipe_setting("constant", choices=("constant", "one-cycle"))
    warmup: float = recipe_setting(0.3, gt=0, lt=1)
    beta1: float = recipe_setting(0.9, ge=0, lt=1)
    beta2: float = recipe_setting(0.999, ge=0, lt=1)
    average: float = recipe_setting(0.0, ge=0, lt=1)
    rotation: float = recipe_setting(0.0, ge=0, le=180)
    shift: float = recipe_setting(0.0, ge=0, le=28)
    scale: float = recipe_setting(0.0, ge=0, lt=1)
    dtype: str = recipe_setting("float32", choices=("float32", "float64"))
    checkpoint_every: int | None = setting(None, ge=1)
    keep: int = setting(2, ge=1)
    resume: str = setting("never")
    max_restarts: int = setting(0, ge=0)
    target_accuracy: float | None = setting(None, gt=0, le=1)
    compile: bool = setting(False)
    cuda_graph: bool | None = setting(None)
    speedups: bool = setting(True, on_command_line=False)

    @property
    def wants_cuda_graph(self) -> bool:
        """Whether to record steps. By default not with `compile` or of a user's own network: it may be impossible."""
        return not self.compile and ":" not in self.model if self.cuda_graph is None else self.cuda_graph

    def _conflicts(self) -> list[Problem]:
        problems = super()._conflicts()
        for name, value in (("early_stop", self.early_stop), ("select", self.select)):
            if value not in (None, "last") and not self.validation_samples:
                problems.append(Problem(name, f"{value}: needs held-out samples", see="validation_samples"))
        if self.max_restarts and not self.processes and not launched_world_size():
            problems.append(Problem("max_restarts", f"{self.max_restarts}: works only with processes", see="processes"))
        if self.fold and not re.fullmatch(r"[1-9]\d{0,3}/[1-9]\d{0,3}", self.fold):
            problems.append(Problem("fold", f"{self.fold}: not a part; give K/N, such as 1/5"))
        processes = launched_world_size() or self.processes or 1
        parts = processes * self.gradient_accumulation_steps
        if self.batch_size < parts:
            steps = count(self.gradient_accumulation_steps, "accumulation step")
            size = f"{count(processes, 'process', 'es')} × {steps}"
            problems.append(Problem("batch_size", f"{self.batch_size}: smaller than {size}; give at least {parts}"))
        return problems


class EvaluateConfig(RunConfig):
    """One evaluation of saved weights. Raises ConfigError with all problems of all settings."""

    weights: Path = setting(Path("mnist_cnn_model.pth"))
    dataset: str | None = setting(None, choices=DATASET_CHOICES)
    model: str | None = setting(None, choices=(OWN_NETWORK,))
    batch_size: int | None = setting(None, ge=1)

    def _conflicts(self) -> list[Problem]:
        problems = super()._conflicts()
        if not exists(self.weights):
            problems.append(Problem("weights", f"{self.weights}: {NO_WEIGHTS}"))
        elif not self.weights.is_file():
            problems.append(Problem("weights", f"{self.weights}: not a file; give the weights file itself"))
        return problems
