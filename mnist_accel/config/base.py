"""How settings are described, merged with a recipe and checked; and the settings that training and evaluation share."""

import functools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from mnist_accel.config import recipe
from mnist_accel.errors import ConfigError, Problem, did_you_mean, printable
from mnist_accel.hardware.cores import available_cores, launched_world_size

MEANINGS = Path(__file__).with_name("settings.toml")
LARGEST_NUMBER = 10**12  # of any setting; some libraries overflow beyond
LIMITS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
OWN_NETWORK = "FILE.py:CLASS"
MISTAKEN = {"learning_rate": "lr", "device": "cpu", "gpu": "cpu", "workers": "processes"}  # in other programs


def setting(default: Any, **described: Any) -> Any:
    """A field of a configuration: what `Setting` describes, and pydantic's ge, gt, le and lt; each number has some."""
    limits = {key: described.pop(key) for key in LIMITS if key in described}
    described["limits"] = " and ".join(f"{LIMITS[key]} {limit}" for key, limit in limits.items())
    return Field(default, json_schema_extra=described, **({"le": LARGEST_NUMBER} | limits if limits else {}))


@dataclass(frozen=True)
class Setting:
    """The description of a setting."""

    default: Any
    meaning: str
    kind: type  # of a value that is not None
    limits: str  # for people, for example "of at least 1"; empty if there are none
    choices: tuple[str, ...] = ()  # in lower case, any path in place of DIR and FILE; empty: any name
    on_command_line: bool = True
    decides_result: bool = False  # whether a checkpoint with another value belongs to another run

    def reason(self, error: Mapping[str, Any]) -> str:
        """One error of pydantic in words: the value, what is wrong with it, and what to give."""
        text = printable(error["input"], 100)
        if error["type"] == "value_error":
            return f"{text}: {error['ctx']['error']}"
        number = "whole number" if self.kind is int else "number"
        is_outside = LIMITS.keys() & error.get("ctx", {}).keys()
        wrong = f"out of range; give a {number}" if is_outside else f"not a {number}; give one"
        return f"{text}: {wrong} {self.limits}"


class RunConfig(BaseModel):
    """The settings that training and evaluation share: data, hardware, output."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, defer_build=True)  # deferred for a fast --help

    data_dir: Path = setting(Path("data"))
    skip_damaged: bool = setting(False)
    mixed_precision: str = setting("auto", choices=("auto", "no", "bf16", "fp16"))
    cpu: bool = setting(False)
    threads: int | None = setting(None, ge=1, le=4096)
    processes: int | None = setting(None, ge=1)
    timeout: int = setting(300, ge=1, le=10**7)
    output_dir: Path = setting(Path())

    @field_validator("*", mode="before")
    @classmethod
    def _prepared(cls, value: Any, info: ValidationInfo) -> Any:
        """The value for pydantic, which reads numbers from text; a choice in its canonical form."""
        known = settings(cls)[info.field_name or ""]
        if known.kind is bool and not isinstance(value, bool):
            raise ValueError("give true or false")
        if known.kind in (int, float) and isinstance(value, bool):
            raise ValueError("not a number; give one")
        if known.kind not in (str, Path):
            return value
        if not isinstance(value, (str, os.PathLike)) or not str(value) or "\0" in str(value):
            raise ValueError("not a name; give a text that is not empty")
        head, colon, rest = str(value).partition(":")
        if not known.choices or (rest and OWN_NETWORK in known.choices):
            return str(value)
        name = {"fp32": "no"}.get(head.lower(), head.lower()) + colon
        if not {name + end for end in (("DIR", "FILE") if rest else ("",))} & {*known.choices}:
            raise ValueError(f"unknown; {did_you_mean(name + rest, known.choices)}")
        return name + rest

    def __init__(self, **given: Any) -> None:
        known = settings(type(self))
        from_recipe: dict[str, Any] = {}
        problems: list[Problem] = []
        if isinstance(name := given.get("recipe"), (str, os.PathLike)):
            given["recipe"], from_recipe, problems = recipe.load(str(name))
        for name in (*given, *from_recipe):
            if name not in known:
                hint = did_you_mean(MISTAKEN.get(name, name), known)
                source = "" if name in given else given["recipe"]
                problems.append(Problem(printable(name, 50), f"is not a setting; {hint}", source=source))
        given = {name: value for name, value in given.items() if name in known and value is not None}
        values = {name: value for name, value in from_recipe.items() if name in known} | given
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
        """The settings that were given, with `changes` (None takes one back); the others come from the recipe anew."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**given | changes)

    def _conflicts(self) -> list[Problem]:
        """Problems between settings, or between a setting and this machine."""
        problems, wanted, launched, cores = [], self.processes, launched_world_size(), available_cores()
        if wanted and launched and wanted != launched:
            problems.append(Problem("processes", f"{wanted}: a launcher has already started {launched}; leave it out"))
        elif wanted and self.cpu and not launched and wanted > cores:
            # Without `cpu`, only torch knows whether there are GPUs; the launch then checks the number.
            text = f"{wanted}: this machine has {count(cores, 'CPU core')}; give at most {cores}"
            problems.append(Problem("processes", text))
        if self.mixed_precision == "fp16" and self.cpu:
            problems.append(Problem("mixed_precision", "fp16: a CPU cannot train in fp16; give bf16 or no"))
        return problems


def count(number: int, noun: str, plural: str = "s") -> str:
    """A number with its noun: "1 process", "2 processes"."""
    return f"{number} {noun}{plural if number != 1 else ''}"


@functools.cache
def settings(config: type[RunConfig]) -> dict[str, Setting]:
    """The settings of a configuration class by name: its own first, then those of `RunConfig`."""
    tables = tomllib.loads(MEANINGS.read_text("utf-8"))
    meanings = tables["RunConfig"] | tables.get(config.__name__, {})
    found = {}
    for name, field in sorted(config.model_fields.items(), key=lambda item: item[0] in RunConfig.model_fields):
        kind = next(part for part in get_args(field.annotation) or (field.annotation,) if part is not type(None))
        extra: Any = field.json_schema_extra
        found[name] = Setting(default=field.default, meaning=meanings[name], kind=kind, **extra)
    return found


def option_name(name: str) -> str:
    """The command-line option of a setting: `--batch-size` for `batch_size`."""
    return "--" + name.replace("_", "-")
