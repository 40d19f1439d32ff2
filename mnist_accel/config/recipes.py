"""Recipes: named settings in TOML files, with what to expect of them in their `[about]` table."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from mnist_accel.errors import did_you_mean

FOLDER = Path(__file__).parent / "recipe_files"


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str, keys: Set[str]) -> tuple[Mapping[str, Any], list[str]]:
    """The settings of a recipe, given by name or as a .toml file, and the problems found in it.

    Args:
        name: a name in `names()`, or the path of a file that ends in .toml.
        keys: the settings that a recipe may set.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if path.parent == FOLDER and name not in names():
        return {}, [f"--recipe {name}: unknown; {did_you_mean(name, names())}, or give the path of a .toml file"]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, [f"--recipe {name}: no such file; give the path of a .toml file, or one of {', '.join(names())}"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        return {}, [f"--recipe {name}: not a readable TOML file ({error}); mend it or name another"]
    values.pop("about", None)
    unknown = [key for key in values if key not in keys]
    problems = [f"recipe {name}: unknown key {key!r}; {did_you_mean(key, keys)}" for key in unknown]
    return {key: value for key, value in values.items() if key not in unknown}, problems
