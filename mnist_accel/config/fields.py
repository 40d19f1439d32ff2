"""Describes one setting: its default, meaning and limits, and the wording of errors about it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import Field
from pydantic.fields import FieldInfo

from mnist_accel.errors import did_you_mean, printable

LARGEST_NUMBER = 10**12
"""Larger whole numbers make no sense for any setting, and some libraries overflow."""
LIMITS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
MISTAKEN = {"learning_rate": "lr", "device": "cpu", "gpu": "cpu", "workers": "processes"}
"""Names that other programs use."""
OWN_NETWORK = "FILE.py:CLASS"
SYNONYMS = {"fp32": "no"}
"""Values that other programs use, and the choices that they stand for."""


def setting(
    default: Any,
    meaning: str,
    *,
    choices: tuple[str, ...] = (),
    on_command_line: bool = True,
    decides_result: bool = False,
    **limits: Any,
) -> Any:
    """A field of a configuration. `limits` are those of pydantic's Field: ge, gt, le, lt; each number has some."""
    words = " and ".join(f"{LIMITS[key]} {limit}" for key, limit in limits.items())
    limits = {"le": LARGEST_NUMBER} | limits if limits else {}
    extra: dict[str, Any] = {"choices": choices, "limits": words}
    extra |= {"on_command_line": on_command_line, "decides_result": decides_result}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


@dataclass(frozen=True)
class Setting:
    """The description of a setting.

    Attributes:
        kind: the type of a value that is not None.
        choices: the allowed names, in lower case; "idx:DIR" allows any folder after "idx:", "csv:FILE" any file after
            "csv:", `OWN_NETWORK` any text with a colon. Empty: any name.
        limits: for people, for example "of at least 1"; empty if there are none.
        decides_result: whether a checkpoint with another value belongs to another run.
    """

    default: Any
    meaning: str
    kind: type
    choices: tuple[str, ...]
    limits: str
    on_command_line: bool
    decides_result: bool

    @property
    def metavar(self) -> str:
        """The values for help texts: the choices, or the kind of value."""
        return "|".join(self.choices) or {int: "N", float: "X", Path: "PATH"}.get(self.kind, "NAME")

    def prepared(self, value: Any) -> Any:
        """`value` for pydantic, which reads numbers from text; a choice in its canonical form."""
        if self.kind is bool and not isinstance(value, bool):
            raise ValueError("give true or false")
        if self.kind in (int, float) and isinstance(value, bool):
            raise ValueError("not a number; give one")
        if self.kind not in (str, Path):
            return value
        if not isinstance(value, (str, os.PathLike)) or not str(value) or "\0" in str(value):
            raise ValueError("not a name; give a text that is not empty")
        if not self.choices:
            return str(value)
        head, colon, folder = str(value).partition(":")
        if folder and OWN_NETWORK in self.choices:
            return str(value)
        name = SYNONYMS.get(head.lower(), head.lower()) + colon
        if name + (folder and "DIR") not in self.choices and name + (folder and "FILE") not in self.choices:
            raise ValueError(f"unknown; {did_you_mean(name + folder, self.choices)}")
        return name + folder

    def reason(self, error: Mapping[str, Any]) -> str:
        """One error of pydantic in words: the value, what is wrong with it, and what to give."""
        text = printable(error["input"], 100)
        if error["type"] == "value_error":
            return f"{text}: {error['ctx']['error']}"
        number = "whole number" if self.kind is int else "number"
        is_outside = LIMITS.keys() & error.get("ctx", {}).keys()
        wrong = f"out of range; give a {number}" if is_outside else f"not a {number}; give one"
        return f"{text}: {wrong} {self.limits}"


def describe(field: FieldInfo) -> Setting:
    """The description of a field that `setting` made."""
    kind = next(part for part in get_args(field.annotation) or (field.annotation,) if part is not type(None))
    extra = cast("dict[str, Any]", field.json_schema_extra)
    return Setting(default=field.default, meaning=field.description or "", kind=kind, **extra)
