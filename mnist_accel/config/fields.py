"""Describes one setting: its type, default, meaning and limits, and the wording of errors about it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field, JsonValue, StrictBool
from pydantic.fields import FieldInfo

from mnist_accel.errors import did_you_mean, printable

LARGEST_NUMBER = 10**12
"""Larger whole numbers make no sense for any setting, and some libraries overflow."""
LIMITS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
MISTAKEN = {"learning_rate": "lr", "device": "cpu", "gpu": "cpu", "workers": "processes"}
"""Names that other programs use."""


@dataclass(frozen=True)
class OneOf:
    """Checks a name against `choices` in any case, and against forms such as idx:DIR, with a folder after the colon."""

    choices: tuple[str, ...]
    forms: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def __call__(self, value: Any) -> str:
        head, colon, folder = _named(value).partition(":")
        name = dict(self.aliases).get(head.lower(), head.lower()) + colon + folder
        if name not in self.choices and not (folder and f"{name.partition(':')[0]}:DIR" in self.forms):
            raise ValueError(f"unknown; {did_you_mean(name, self.choices + self.forms)}")
        return name


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("not a number; give one")
    return value


def _named(value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)) or not str(value) or "\0" in str(value):
        raise ValueError("not a name; give a text that is not empty")
    return str(value)


NOT_BOOL = BeforeValidator(_not_bool)
Whole = Annotated[int, NOT_BOOL, Field(le=LARGEST_NUMBER)]
MaybeWhole = Annotated[int | None, NOT_BOOL, Field(le=LARGEST_NUMBER)]
Real = Annotated[float, NOT_BOOL]
Name = Annotated[str, BeforeValidator(_named)]
File = Annotated[Path, BeforeValidator(_named)]
Bool = StrictBool


def setting(
    default: Any, meaning: str, *, on_command_line: bool = True, decides_result: bool = False, **limits: Any
) -> Any:
    """A field of a configuration. `limits` are those of pydantic's Field: ge, gt, le, lt."""
    extra: dict[str, JsonValue] = {"on_command_line": on_command_line, "decides_result": decides_result}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


@dataclass(frozen=True)
class Setting:
    """The description of a setting.

    Attributes:
        kind: the type of a value that is not None.
        forms: values such as idx:DIR that are allowed besides `choices`.
        limits: for people, for example "of at least 1"; empty if there are none.
        decides_result: whether a checkpoint with another value belongs to another run.
    """

    default: Any
    meaning: str
    kind: type
    choices: tuple[str, ...]
    forms: tuple[str, ...]
    limits: str
    on_command_line: bool
    decides_result: bool

    @property
    def metavar(self) -> str:
        """The values for help texts: the choices, or the kind of value."""
        return "|".join(self.choices + self.forms) or {int: "N", float: "X", Path: "PATH"}.get(self.kind, "NAME")


def describe(field: FieldInfo) -> Setting:
    """The description of a field that `setting` made."""
    kind = next(part for part in get_args(field.annotation) or (field.annotation,) if part is not type(None))
    choice = next((part.func for part in field.metadata if isinstance(getattr(part, "func", None), OneOf)), OneOf(()))
    found = [(word, getattr(part, key, None)) for key, word in LIMITS.items() for part in field.metadata]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Setting(
        default=field.default,
        meaning=field.description or "",
        kind=kind,
        choices=choice.choices,
        forms=choice.forms,
        limits=" and ".join(f"{word} {limit}" for word, limit in found if limit not in (None, LARGEST_NUMBER)),
        on_command_line=bool(extra.get("on_command_line")),
        decides_result=bool(extra.get("decides_result")),
    )


def reason(error: Mapping[str, Any], known: Setting) -> str:
    """One error of pydantic in words: the value, what is wrong with it, and what to give."""
    value = error["input"]
    is_huge = isinstance(value, int) and abs(value) > LARGEST_NUMBER  # Python refuses to print the largest ones
    text = "a huge number" if is_huge else printable(value, 100)
    number = f"{'whole ' if known.kind is int else ''}number"
    if error["type"] == "value_error":
        return f"{text}: {error['ctx']['error']}"
    if known.kind is bool:
        return f"{text}: give true or false"
    if known.kind not in (int, float):
        return f"{text}: not a name; give one"
    if set(LIMITS) & set(error.get("ctx", {})):
        return f"{text}: out of range; give a {number} {known.limits}".rstrip()
    return f"{text}: not a {number}; give one {known.limits}".rstrip()
