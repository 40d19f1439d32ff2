"""Recipes: named settings in TOML files. The `[about]` table of a recipe says which results to expect."""

import tomllib
from pathlib import Path
from typing import Any

from mnist_accel.errors import Problem, did_you_mean, printable
from mnist_accel.files.untrusted import read_limited

FOLDER = Path(__file__).parent / "recipes"
ALIASES = {"seed": "classic"}
"""Earlier names."""
MAX_BYTES = 8 * 1024
"""The memory that tomllib needs for a dotted key grows with the square of its length."""


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def canonical(name: str) -> str:
    """The name of a recipe in lower case and today's form; the path of a file as it is."""
    return name if name.endswith(".toml") else ALIASES.get(name.lower(), name.lower())


def load(name: str) -> tuple[dict[str, Any], list[Problem]]:
    """The settings in a recipe, unchecked, and the problem if it cannot be read.

    `name` is one of `names()`, or the path of a file that ends in .toml.
    """
    is_file = name.endswith(".toml")
    if not is_file and name not in names():
        text = f"unknown; {did_you_mean(name, names())}, or give the path of a .toml file"
        return {}, [Problem("recipe", f"{printable(name)}: {text}")]
    try:
        content = read_limited(Path(name) if is_file else FOLDER / f"{name}.toml", MAX_BYTES)
        values = tomllib.loads(content.decode())
    except FileNotFoundError:
        text = f"no such file; give the path of a .toml file, or one of {', '.join(names())}"
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, or a huge number
        reason = printable((isinstance(error, OSError) and error.strerror) or error, 100)
        text = f"not a readable TOML file ({reason}); correct it or give another recipe"
    else:
        return {key: value for key, value in values.items() if key not in ("about", "recipe")}, []
    return {}, [Problem("recipe", f"{printable(name)}: {text}")]
