"""What a run is asked to do: every setting once, with its meaning, unit, default and limits.

`TrainConfig` and `EvaluateConfig` take their values in this order: what the caller gives, then the recipe, then the
default. Values may be strings, as they come from a command line. All problems are raised at once, before any work.
Nothing here imports torch, so that a mistyped option is reported at once.
"""

from __future__ import annotations

import dataclasses
import os
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_accel.config import recipes
from mnist_accel.config.setting import UNSET, Setting, checked, setting
from mnist_accel.errors import ConfigError
from mnist_accel.files import atomic as files
from mnist_accel.hardware.cores import available_cores, launched_world_size

DATASETS = ("auto", "mnist", "mnist-5k", "fashion-mnist", "kmnist")
DATASET_FORMS = ("idx:DIR", "folder:DIR")
MODELS = ("cnn", "small-cnn", "normalised-cnn")
PRECISIONS = ("auto", "no", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The settings that training and evaluation share: data, hardware, output."""

    dataset: str = setting(
        "auto",
        "Data set; idx:DIR: IDX files of your own; folder:DIR: pictures, one sub-folder a class.",
        choices=DATASETS,
        forms=DATASET_FORMS,
    )
    data_dir: Path = setting(Path("data"), "Folder of the data sets, in torchvision's layout (MNIST/raw/…).")
    batch_size: int = setting(
        128,
        "Samples of one optimizer step, over all processes and accumulation steps.",
        minimum=1,
        decides_result=True,
    )
    mixed_precision: str = setting(
        "auto",
        "Arithmetic of the forward pass; auto: what Accelerate was configured with, else bf16 where native, else no.",
        choices=PRECISIONS,
    )
    cpu: bool = setting(False, "Use the CPU even where there is an accelerator.")
    threads: int | None = setting(
        None,
        "CPU threads of each process; by default the cores available, divided by the local processes.",
        minimum=1,
        maximum=4096,
    )
    processes: int | None = setting(None, "Start this many processes on this machine.", minimum=1)
    timeout: int = setting(
        300,
        "Seconds after which a process that no longer answers is given up by the others.",
        minimum=1,
        maximum=10**7,
    )
    output_dir: Path = setting(Path(), "Folder for the results.")

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not UNSET}
        problems: list[str] = []
        known_settings = settings(type(self))
        from_recipe: Mapping[str, Any] = {}
        if "recipe" in known_settings:
            recipe = str(given.get("recipe", known_settings["recipe"].default))
            from_recipe, problems = recipes.load(recipe, known_settings.keys() - {"recipe"})
        for name, known in known_settings.items():
            if name in given:
                value, where = given[name], ""
            elif name in from_recipe:
                value, where = from_recipe[name], f"recipe {recipe}: "
            else:
                value, where = known.default, ""
            if value is not None:
                try:
                    value = checked(value, _kind(type(self), name), known)
                except ValueError as error:
                    problems.append(f"{where}{option_name(name)} {value}: {error}")
                    value = known.default  # lets the remaining checks run
            object.__setattr__(self, name, value)
        self._check(problems)
        if problems:
            raise ConfigError(problems)

    @property
    def world_size(self) -> int:
        """Processes of the whole run: those of the launcher that started this one, else `processes`."""
        return launched_world_size() or self.processes or 1

    def _check(self, problems: list[str]) -> None:
        """Append what is wrong between fields, or between a field and this machine."""
        launched, cores = launched_world_size(), available_cores()
        if self.processes and launched and self.processes != launched:
            problems.append(
                f"--processes {self.processes}: a launcher has already started {launched}; leave the option out"
            )
        elif self.processes and not launched and self.processes > cores:
            problems.append(f"--processes {self.processes}: this machine has {cores} cores; give at most {cores}")
        if self.mixed_precision == "fp16" and self.cpu:
            problems.append("--mixed-precision fp16: a CPU has no fp16 training; give bf16 or no")
        folder = self.output_dir.absolute()
        try:
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
        except OSError as error:  # a name too long, a folder that may not be entered
            problems.append(f"--output-dir {self.output_dir}: {error.strerror}; name another folder")
            return
        if not folder.is_dir():
            problems.append(f"--output-dir {self.output_dir}: {folder} is not a folder; name another")
        elif not os.access(folder, os.W_OK | os.X_OK):
            problems.append(f"--output-dir {self.output_dir}: cannot write in {folder}; name another folder")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """One training run. `TrainConfig(recipe="seed", epochs=1)` is the command line `--recipe seed --epochs 1`.

    Raises:
        ConfigError: with every problem of every setting.
    """

    recipe: str = setting("seed", "Named settings, or a .toml file of them; single options win over it.")
    model: str = setting("cnn", "Architecture.", choices=MODELS, decides_result=True)
    epochs: int = setting(5, "Passes over the training set.", minimum=1, decides_result=True)
    lr: float = setting(
        0.001, "Learning rate of Adam; its peak where the recipe has a schedule.", above=0, decides_result=True
    )
    seed: int = setting(
        0,
        "Seed of initial weights, sample order and dropout.",
        minimum=0,
        maximum=2**31 - 1,
        decides_result=True,
    )
    train_samples: int | None = setting(
        None, "Train on this many samples only: a seeded, class-balanced subset.", minimum=1, decides_result=True
    )
    validation_samples: int | None = setting(
        None,
        "Hold this many training samples out, class-balanced, to choose by; the test set is then used at the end only.",
        minimum=1,
        decides_result=True,
    )
    early_stop: int | None = setting(
        None,
        "Stop after this many epochs in a row without a lower validation loss.",
        minimum=1,
        decides_result=True,
    )
    select: str = setting(
        "last",
        "Final weights: those of the last epoch, or of the one with the lowest validation loss.",
        choices=("last", "best"),
        decides_result=True,
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Parts that each process computes a step in, to save memory; the result is the same.",
        minimum=1,
        decides_result=True,
    )
    dropout: float = setting(
        0.5,
        "Probability that a hidden unit is dropped.",
        minimum=0,
        below=1,
        on_command_line=False,
        decides_result=True,
    )
    schedule: str = setting(
        "constant",
        "Course of the learning rate: constant, or one cycle up and down over the whole run.",
        choices=("constant", "one-cycle"),
        on_command_line=False,
        decides_result=True,
    )
    warmup: float = setting(
        0.3, "Share of all steps in which a cycle rises.", above=0, below=1, on_command_line=False, decides_result=True
    )
    beta1: float = setting(
        0.9, "Decay of Adam's mean gradient.", minimum=0, below=1, on_command_line=False, decides_result=True
    )
    beta2: float = setting(
        0.999, "Decay of Adam's mean squared gradient.", minimum=0, below=1, on_command_line=False, decides_result=True
    )
    average: float = setting(
        0.0,
        "Decay a step of the moving average of the weights that is tested and saved; 0: none is kept.",
        minimum=0,
        below=1,
        on_command_line=False,
        decides_result=True,
    )
    rotation: float = setting(
        0.0,
        "Augmentation: largest angle in degrees.",
        minimum=0,
        maximum=180,
        on_command_line=False,
        decides_result=True,
    )
    shift: float = setting(
        0.0, "Augmentation: largest shift in pixels.", minimum=0, maximum=28, on_command_line=False, decides_result=True
    )
    scale: float = setting(
        0.0,
        "Augmentation: largest change of width and of height, as a share.",
        minimum=0,
        below=1,
        on_command_line=False,
        decides_result=True,
    )
    dtype: str = setting(
        "float32",
        "Type of the weights; float64 is for comparing runs to the last digit.",
        choices=("float32", "float64"),
        on_command_line=False,
        decides_result=True,
    )
    checkpoint_every: int | None = setting(
        None, "Optimizer steps between two checkpoints; by default one after each epoch.", minimum=1
    )
    keep: int = setting(2, "Checkpoints to keep.", minimum=1)
    resume: str = setting(
        "never",
        "auto: continue from the output folder's newest whole checkpoint, if any; or a checkpoint's path; or never.",
    )
    max_restarts: int = setting(
        0, "With --processes: start again this often, from the last checkpoint, when a process crashes.", minimum=0
    )
    target_accuracy: float | None = setting(
        None, "Exit with code 3 if the final test accuracy is below this (0 to 1).", above=0, maximum=1
    )
    compile: bool = setting(False, "Compile the model with torch.compile; one GPU replays it as CUDA graphs.")

    def _check(self, problems: list[str]) -> None:
        super()._check(problems)
        if not self.validation_samples:
            problems += [
                f"{option_name(name)} {value}: needs samples to choose by; give --validation-samples"
                for name, value in (("early_stop", self.early_stop), ("select", self.select))
                if value not in (None, "last")
            ]
        if self.max_restarts and not self.processes and not launched_world_size():
            problems.append(f"--max-restarts {self.max_restarts}: goes with --processes; give that, too")
        parts = self.world_size * self.gradient_accumulation_steps
        if self.batch_size < parts:
            problems.append(
                f"--batch-size {self.batch_size}: smaller than {self.world_size} processes × "
                f"{self.gradient_accumulation_steps} accumulation steps; give at least {parts}"
            )
        if self.dtype == "float64" and self.mixed_precision not in ("auto", "no"):
            problems.append(f"--mixed-precision {self.mixed_precision}: does not go with dtype float64; give no")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(RunConfig):
    """One evaluation of saved weights.

    Raises:
        ConfigError: with every problem of every setting.
    """

    weights: Path = setting(
        Path("mnist_cnn_model.pth"), "Weights file (.pth), or an exported one (.onnx, .safetensors, .pt2)."
    )
    dataset: str | None = setting(  # type: ignore[assignment]  # None: the one named beside the weights
        None,
        "Data set; by default the one named in the JSON beside the weights.",
        choices=DATASETS[1:],
        forms=DATASET_FORMS,
    )
    batch_size: int = setting(1000, "Samples of one forward pass, over all processes.", minimum=1)

    def _check(self, problems: list[str]) -> None:
        super()._check(problems)
        if not files.exists(self.weights):
            problems.append(f"--weights {self.weights}: no such file; train first (mnist-accel train) or name another")
        elif not self.weights.is_file():
            problems.append(f"--weights {self.weights}: not a file; name the weights file itself")


def settings(config: type[RunConfig]) -> dict[str, Setting]:
    """The fields of a config class by name."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(config)}


def option_name(name: str) -> str:
    """`batch_size` as it is typed: `--batch-size`."""
    return "--" + name.replace("_", "-")


def metavar(config: type[RunConfig], name: str) -> str:
    """What a setting takes, for help texts: its choices, else its kind."""
    known = settings(config)[name]
    return "|".join(known.choices + known.forms) or {int: "N", float: "X", Path: "PATH"}.get(
        _kind(config, name), "NAME"
    )


def _kind(config: type[RunConfig], name: str) -> type:
    """The type of a field, without its `| None`."""
    hint = typing.get_type_hints(config)[name]
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    return typing.cast(type, hint)
