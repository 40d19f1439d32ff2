"""Recipes: named settings in TOML files. The `[about]` table of a recipe says which results to expect."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_accel.config.fields import MISTAKEN, Setting
from mnist_accel.errors import Problem, did_you_mean, printable
from mnist_accel.files.untrusted import read_limited

FOLDER = Path(__file__).parent / "recipes"
ALIASES = {"seed": "classic"}
MAX_BYTES = 64 * 1024
MAX_LINE = 1000
"""Characters. The memory that tomllib needs for a dotted key grows with the square of its length."""


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def canonical(name: str) -> str:
    """The name of a recipe in lower case and without aliases; the path of a file stays as it is."""
    return name if name.endswith(".toml") else ALIASES.get(name.lower(), name.lower())


def load(name: str, known: Mapping[str, Setting]) -> tuple[Mapping[str, Any], list[Problem]]:
    """Read a recipe: its settings, whose limits are not yet checked, and the problems.

    Args:
        name: one of `names()`, or the path of a file that ends in .toml.
        known: the settings by name.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    shown = printable(name)
    if path.parent == FOLDER and name not in names():
        hint = did_you_mean(name, names())
        return {}, [Problem("recipe", f"{shown}: unknown; {hint}, or give the path of a .toml file")]
    try:
        text = read_limited(path, MAX_BYTES).decode()
        if max(map(len, text.split("\n"))) > MAX_LINE:
            raise ValueError(f"a line has more than {MAX_LINE:,} characters")
        values = tomllib.loads(text)
    except FileNotFoundError:
        hint = f"give the path of a .toml file, or one of {', '.join(names())}"
        return {}, [Problem("recipe", f"{shown}: no such file; {hint}")]
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, or a huge number
        reason = printable((isinstance(error, OSError) and error.strerror) or error, 100)
        text = f"{shown}: not a readable TOML file ({reason}); correct it or give another recipe"
        return {}, [Problem("recipe", text)]
    values.pop("about", None)
    problems, sound = [], {}
    for key, value in values.items():
        if key not in known or key == "recipe":
            hint = did_you_mean(MISTAKEN.get(key, key), known.keys() - {"recipe"})
            problems.append(Problem("recipe", f"{name}: unknown key {printable(repr(key), 60)}; {hint}"))
        elif isinstance(value, str) and known[key].kind in (int, float):
            text = f'"{printable(value, 100)}": not a number; write it without quotes'
            problems.append(Problem(key, text, source=name))
        else:
            sound[key] = value
    return sound, problems
