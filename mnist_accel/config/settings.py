"""The settings of a training run and of an evaluation: each is stated once, with meaning, default and limits.

A value is taken from the caller, else from the recipe, else from the default. Values may be texts, as on a command
line. All problems are raised together, before any work: this module does not import torch.
"""

import re
from functools import partial
from pathlib import Path

from mnist_accel.config.base import RunConfig, count, option_name, settings
from mnist_accel.config.fields import OWN_NETWORK, setting
from mnist_accel.errors import Problem
from mnist_accel.files.atomic import exists
from mnist_accel.hardware.cores import launched_world_size

__all__ = ["DATASETS", "MODELS", "EvaluateConfig", "RunConfig", "TrainConfig", "option_name", "settings"]

EMNIST = tuple(f"emnist-{split}" for split in ("byclass", "bymerge", "balanced", "letters", "digits", "mnist"))
DATASETS = ("mnist", "fashion-mnist", "kmnist", *EMNIST)
DATASET_CHOICES = (*DATASETS, "idx:DIR", "folder:DIR", "csv:FILE", "npz:FILE")
MODELS = ("cnn", "small-cnn", "normalised-cnn")
result_setting = partial(setting, decides_result=True)
"""A checkpoint with another value of such a setting belongs to another run."""
recipe_setting = partial(result_setting, on_command_line=False)


class TrainConfig(RunConfig):
    """One training run. `TrainConfig(recipe="accurate", epochs=1)` is `--recipe accurate --epochs 1`.

    Raises ConfigError with all problems of all settings.
    """

    recipe: str = setting("classic", "Recipe by name, or a .toml file of settings. Single options win over it.")
    dataset: str = setting(
        "mnist",
        "Data set. Your own: idx:DIR, IDX files; folder:DIR, pictures in one sub-folder per class; csv:FILE, rows of a "
        "label and 784 pixels; npz:FILE, NumPy's arrays x_train, y_train, x_test, y_test.",
        choices=DATASET_CHOICES,
    )
    model: str = result_setting(
        "cnn",
        "Network architecture. FILE.py:CLASS or MODULE:CLASS: your own torch.nn.Module, which is built with classes=N.",
        choices=(*MODELS, OWN_NETWORK),
    )
    epochs: int = result_setting(5, "Passes over the training set.", ge=1)
    lr: float = result_setting(
        0.001, "Learning rate of Adam; the highest one if the recipe has a schedule.", gt=0, le=1000
    )
    seed: int = result_setting(0, "Seed of initial weights, sample order and dropout.", ge=0, le=2**31 - 1)
    train_samples: int | None = result_setting(
        None, "Train on this many samples: a class-balanced subset, chosen by the seed. Default: all.", ge=1
    )
    fold: str | None = result_setting(
        None, "K/N: test on part K of N parts of the training set, and train on the others.", on_command_line=False
    )
    validation_samples: int | None = result_setting(
        None,
        "Hold out this many training samples, class-balanced, for --select and --early-stop. The test set is then "
        "used once, after training.",
        ge=1,
    )
    early_stop: int | None = result_setting(
        None, "Stop after this many epochs in a row without a lower validation loss.", ge=1
    )
    select: str = result_setting(
        "last",
        "Final weights: those of the last epoch, or of the epoch with the lowest validation loss.",
        choices=("last", "best"),
    )
    gradient_accumulation_steps: int = result_setting(
        1,
        "Compute each step in this many parts, to save memory. The gradient stays that of the whole batch; only batch "
        "normalisation sees the smaller parts.",
        ge=1,
    )
    dropout: float = recipe_setting(0.5, "Probability that dropout zeroes a hidden unit.", ge=0, le=0.9)
    schedule: str = recipe_setting(
        "constant",
        "Learning rate: constant, or one cycle up and down over the whole run.",
        choices=("constant", "one-cycle"),
    )
    warmup: float = recipe_setting(0.3, "Share of all steps in which a one-cycle learning rate rises.", gt=0, lt=1)
    beta1: float = recipe_setting(0.9, "Decay of Adam's mean gradient.", ge=0, lt=1)
    beta2: float = recipe_setting(0.999, "Decay of Adam's mean squared gradient.", ge=0, lt=1)
    average: float = recipe_setting(
        0.0,
        "Decay per step of the moving average of the weights, which is then tested and saved. 0: no average.",
        ge=0,
        lt=1,
    )
    rotation: float = recipe_setting(0.0, "Augmentation: largest rotation in degrees.", ge=0, le=180)
    shift: float = recipe_setting(0.0, "Augmentation: largest shift in pixels.", ge=0, le=28)
    scale: float = recipe_setting(0.0, "Augmentation: largest relative change of width and of height.", ge=0, lt=1)
    dtype: str = recipe_setting(
        "float32",
        "Type of the weights. float64 serves to compare runs without rounding.",
        choices=("float32", "float64"),
    )
    checkpoint_every: int | None = setting(
        None, "Optimizer steps between two checkpoints. Default: one checkpoint after each epoch.", ge=1
    )
    keep: int = setting(2, "Number of checkpoints to keep.", ge=1)
    resume: str = setting(
        "never",
        "auto: resume from the newest valid checkpoint in the output folder, if there is one. Or the path of a "
        "checkpoint, or never.",
    )
    max_restarts: int = setting(
        0, "With --processes: restart this many times from the last checkpoint after a process crashes.", ge=0
    )
    target_accuracy: float | None = setting(
        None, "Exit with code 3 if the final test accuracy is below this value (0 to 1).", gt=0, le=1
    )
    compile: bool = setting(False, "Compile the model with torch.compile; on one GPU with CUDA graphs.")
    speedups: bool = setting(
        True, "Use the faster kernels, memory and gradient exchange of mnist_accel/speed.", on_command_line=False
    )

    def _conflicts(self) -> list[Problem]:
        problems = super()._conflicts()
        for name, value in (("early_stop", self.early_stop), ("select", self.select)):
            if value not in (None, "last") and not self.validation_samples:
                problems.append(Problem(name, f"{value}: needs held-out samples", see="validation_samples"))
        if self.max_restarts and not self.processes and not launched_world_size():
            problems.append(Problem("max_restarts", f"{self.max_restarts}: works only with processes", see="processes"))
        if self.fold and not re.fullmatch(r"[1-9]\d{0,3}/[1-9]\d{0,3}", self.fold):
            problems.append(Problem("fold", f"{self.fold}: not a part; give K/N, such as 1/5"))
        parts = self.world_size * self.gradient_accumulation_steps
        if self.batch_size < parts:
            steps = count(self.gradient_accumulation_steps, "accumulation step")
            size = f"{count(self.world_size, 'process', 'es')} × {steps}"
            problems.append(Problem("batch_size", f"{self.batch_size}: smaller than {size}; give at least {parts}"))
        if self.dtype == "float64" and self.mixed_precision not in ("auto", "no"):
            text = f"{self.mixed_precision}: cannot be combined with dtype float64; give no"
            problems.append(Problem("mixed_precision", text))
        return problems


class EvaluateConfig(RunConfig):
    """One evaluation of saved weights. Raises ConfigError with all problems of all settings."""

    weights: Path = setting(
        Path("mnist_cnn_model.pth"), "Weights file (.pth), or an exported one (.onnx, .safetensors)."
    )
    dataset: str | None = setting(
        None, "Data set. Default: the one that the JSON beside the weights names.", choices=DATASET_CHOICES
    )
    model: str | None = setting(
        None, "Network of your own, FILE.py:CLASS, that the weights belong to.", choices=(OWN_NETWORK,)
    )
    batch_size: int = setting(1000, "Samples in one forward pass, over all processes.", ge=1)

    def _conflicts(self) -> list[Problem]:
        problems = super()._conflicts()
        if not exists(self.weights):
            hint = "train first (mnist-accel train) or give another file"
            problems.append(Problem("weights", f"{self.weights}: no such file; {hint}"))
        elif not self.weights.is_file():
            problems.append(Problem("weights", f"{self.weights}: not a file; give the weights file itself"))
        return problems
