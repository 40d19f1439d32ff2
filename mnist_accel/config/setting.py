"""One setting: its meaning, its default, its limits, and the check of a value against them."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_accel.errors import did_you_mean

LARGEST_NUMBER = 10**12
"""Beyond which no whole number has a meaning here, and libraries overflow."""
UNSET: Any = None
"""Stands for "not given" in a constructor call; no setting has a meaning for an explicit None other than that."""


@dataclass(frozen=True)
class Setting:
    """What is known of one field: its meaning, its default and what it may hold."""

    default: Any
    meaning: str
    choices: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    """Besides the choices, anything that begins as one of these does, up to its colon."""
    minimum: float = -math.inf
    above: float = -math.inf
    """Exclusive lower limit."""
    maximum: float = math.inf
    below: float = math.inf
    """Exclusive upper limit."""
    on_command_line: bool = True
    decides_result: bool = False
    """Whether a checkpoint made with another value is of another run."""


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """A dataclass field described by a `Setting`."""
    return dataclasses.field(default=UNSET, metadata={"setting": Setting(default, meaning, **limits)})


def checked(value: Any, kind: type, known: Setting) -> Any:
    """`value` as `kind`, within the limits; ValueError says what is wrong and what is right."""
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError("give true or false")
        return value
    if isinstance(value, bool):
        raise ValueError("give a value, not true or false")
    if known.choices:
        if value not in known.choices and not is_of_form(value, known.forms):
            raise ValueError(f"unknown; {did_you_mean(str(value), [*known.choices, *known.forms])}")
        return value
    if kind is str or kind is Path:
        if not isinstance(value, (str, os.PathLike)) or not str(value) or "\0" in str(value):
            raise ValueError("give a name")
        return kind(value)
    limits = _limits_text(known)
    try:
        number = kind(value)
        if kind is int and abs(number) > LARGEST_NUMBER:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or (kind is int and isinstance(value, float) and number != value):
        raise ValueError(f"not a {'whole ' if kind is int else ''}number; give one {limits}".rstrip())
    if not (known.minimum <= number <= known.maximum and known.above < number < known.below):
        raise ValueError(f"out of range; give a {'whole ' if kind is int else ''}number {limits}")
    return number


def is_of_form(value: Any, forms: tuple[str, ...]) -> bool:
    """Whether a value is, for the form "idx:DIR", "idx:" and something more."""
    heads = tuple(form.split(":")[0] + ":" for form in forms)
    return isinstance(value, str) and value.startswith(heads) and value not in heads and "\0" not in value


def _limits_text(known: Setting) -> str:
    words = {"of at least": known.minimum, "above": known.above, "of at most": known.maximum, "below": known.below}
    return " and ".join(f"{word} {limit:g}" for word, limit in words.items() if math.isfinite(limit))
