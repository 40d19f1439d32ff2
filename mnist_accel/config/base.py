"""The settings that training and evaluation share, and how a configuration merges and checks its values."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from mnist_accel.config import recipe
from mnist_accel.config.fields import MISTAKEN, Setting, describe, setting
from mnist_accel.errors import ConfigError, Problem, did_you_mean, printable
from mnist_accel.hardware.cores import available_cores, launched_world_size, local_world_size


class RunConfig(BaseModel):
    """The settings that training and evaluation share: data, hardware, output."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    data_dir: Path = setting(Path("data"), "Folder of the data sets, in torchvision's layout (MNIST/raw/…).")
    skip_damaged: bool = setting(
        False, "Leave out all pictures of folder:DIR that cannot be read. Default: leave out at most 1% of them."
    )
    batch_size: int = setting(
        128, "Samples in one optimizer step, over all processes and accumulation steps.", ge=1, decides_result=True
    )
    mixed_precision: str = setting(
        "auto",
        "Precision of the forward pass. no or fp32: float32. auto: the precision that Accelerate was configured with, "
        "else bf16 if the device supports it natively, else no.",
        choices=("auto", "no", "bf16", "fp16"),
    )
    cpu: bool = setting(False, "Use the CPU even if there is a GPU.")
    threads: int | None = setting(
        None, "CPU threads of each process. Default: the cores divided by the local processes.", ge=1, le=4096
    )
    processes: int | None = setting(None, "Start this many processes on this machine.", ge=1)
    timeout: int = setting(
        300, "Seconds to wait for a process that does not answer, before the run fails.", ge=1, le=10**7
    )
    output_dir: Path = setting(Path(), "Folder for the results.")

    @field_validator("*", mode="before")
    @classmethod
    def _prepared(cls, value: Any, info: ValidationInfo) -> Any:
        return describe(cls.model_fields[info.field_name or ""]).prepared(value)

    def __init__(self, **given: Any) -> None:
        known = settings(type(self))
        problems = [
            Problem(printable(name, 50), f"is not a setting; {did_you_mean(MISTAKEN.get(name, name), known)}")
            for name in given
            if name not in known
        ]
        given = {name: value for name, value in given.items() if name in known and value is not None}
        values = given
        if isinstance(given.get("recipe"), (str, os.PathLike)):
            given["recipe"] = recipe.canonical(str(given["recipe"]))
            from_recipe, found = recipe.load(given["recipe"], known)
            values = {**from_recipe, **given}
            problems += found
        try:
            super().__init__(**values)
        except ValidationError as invalid:
            errors = {str(error["loc"][0]): known[str(error["loc"][0])].reason(error) for error in invalid.errors()}
            for name, text in errors.items():
                problems.append(Problem(name, text, source="" if name in given else given["recipe"]))
            # The other values are complete, so that the checks below find the remaining problems.
            super().__init__(**{name: value for name, value in values.items() if name not in errors})
        self.model_fields_set.intersection_update(given)
        problems += self._conflicts()
        if problems:
            raise ConfigError(problems)

    def with_changes(self, **changes: Any) -> Self:
        """A configuration of the settings that were given explicitly, and of `changes`; None takes a setting back.

        Settings that came from the recipe come from the new recipe where `changes` names one.
        """
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**given | changes)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """The same as `with_changes`: pydantic's own method would neither check the values nor read the recipe."""
        return self.with_changes(**update or {})

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON values."""
        return self.model_dump(mode="json")

    @property
    def world_size(self) -> int:
        """Processes of the whole run: those of the launcher that started this process, else `processes`."""
        return launched_world_size() or self.processes or 1

    def warnings(self) -> list[str]:
        """Notices about settings that are allowed but probably not intended on this machine."""
        local = local_world_size() if launched_world_size() else self.processes or 1
        cores = available_cores()
        if self.threads is None or self.threads * local <= cores:
            return []
        given = f"--threads {self.threads}: {count(local, 'process', 'es')} with so many threads"
        better = f"Training is probably slower than with --threads {max(1, cores // local)}."
        return [f"{given} share {count(cores, 'CPU core')}. {better}"]

    def _conflicts(self) -> list[Problem]:
        """Problems between settings, or between a setting and this machine."""
        found, launched, cores = {}, launched_world_size(), available_cores()
        if self.processes and launched and self.processes != launched:
            found["processes"] = f"{self.processes}: a launcher has already started {launched}; leave the setting out"
        elif self.processes and self.cpu and not launched and self.processes > cores:
            # Without `cpu`, only torch knows whether there are GPUs; the launch then checks the number.
            text = f"{self.processes}: this machine has {count(cores, 'CPU core')}; give at most {cores}"
            found["processes"] = text
        if self.mixed_precision == "fp16" and self.cpu:
            found["mixed_precision"] = "fp16: a CPU cannot train in fp16; give bf16 or no"
        return [Problem(name, text) for name, text in found.items()]


def count(number: int, noun: str, plural: str = "s") -> str:
    """A number with its noun: "1 process", "2 processes"."""
    return f"{number} {noun}{plural if number != 1 else ''}"


def settings(config: type[RunConfig]) -> dict[str, Setting]:
    """The settings of a configuration class by name: its own first, then those of `RunConfig`."""
    fields = sorted(config.model_fields.items(), key=lambda item: item[0] in RunConfig.model_fields)
    return {name: describe(field) for name, field in fields}


def option_name(name: str) -> str:
    """The command-line option of a setting: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")
