"""Recipes: named settings in TOML files. The `[about]` table of a recipe says which results to expect."""

import tomllib
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from mnist_accel.errors import Problem, did_you_mean, printable
from mnist_accel.files.untrusted import read_limited

FOLDER = Path(__file__).parent / "recipes"
ALIASES = {"seed": "classic"}
MISTAKEN = {"learning_rate": "lr", "device": "cpu", "gpu": "cpu", "workers": "processes"}
"""Names of settings in other programs."""
MAX_BYTES = 8 * 1024
"""The memory that tomllib needs for a dotted key grows with the square of its length."""


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def canonical(name: str) -> str:
    """The name of a recipe in lower case and without aliases; the path of a file stays as it is."""
    return name if name.endswith(".toml") else ALIASES.get(name.lower(), name.lower())


def load(name: str, known: AbstractSet[str], numbers: AbstractSet[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Read a recipe: its settings, whose limits are not yet checked, and the problems.

    Args:
        name: one of `names()`, or the path of a file that ends in .toml.
        known: the settings that a recipe can set.
        numbers: those of them that are numbers.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if path.parent == FOLDER and name not in names():
        hint = f"{did_you_mean(name, names())}, or give the path of a .toml file"
        return {}, [Problem("recipe", f"{printable(name)}: unknown; {hint}")]
    try:
        values = tomllib.loads(read_limited(path, MAX_BYTES).decode())
    except FileNotFoundError:
        hint = f"give the path of a .toml file, or one of {', '.join(names())}"
        return {}, [Problem("recipe", f"{printable(name)}: no such file; {hint}")]
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, or a huge number
        reason = printable((isinstance(error, OSError) and error.strerror) or error, 100)
        text = f"{printable(name)}: not a readable TOML file ({reason}); correct it or give another recipe"
        return {}, [Problem("recipe", text)]
    values.pop("about", None)
    problems = []
    for key in list(values):
        if key not in known:
            hint = did_you_mean(MISTAKEN.get(key, key), known)
            problems.append(Problem("recipe", f"{name}: unknown key {printable(repr(key), 60)}; {hint}"))
            del values[key]
        elif key in numbers and isinstance(values[key], str):
            text = f'"{printable(values.pop(key), 100)}": not a number; write it without quotes'
            problems.append(Problem(key, text, source=name))
    return values, problems
