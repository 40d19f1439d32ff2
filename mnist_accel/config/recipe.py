"""Recipes: named settings in TOML files. The `[about]` table of a recipe says which results to expect."""

import tomllib
from pathlib import Path
from typing import Any

from mnist_accel.errors import Problem, did_you_mean, printable
from mnist_accel.files.untrusted import read_limited

FOLDER = Path(__file__).parent / "recipes"
ALIASES = {"seed": "classic"}  # earlier names
MAX_BYTES = 8 * 1024  # the memory that tomllib needs for a dotted key grows with the square of its length


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> tuple[str, dict[str, Any], list[Problem]]:
    """A recipe's name in today's form, or a .toml file; its settings, unchecked; the problem if it cannot be read."""
    is_file = name.endswith(".toml")
    name = name if is_file else ALIASES.get(name.lower(), name.lower())
    try:
        content = read_limited(Path(name) if is_file else FOLDER / f"{name}.toml", MAX_BYTES)
        values = tomllib.loads(content.decode())
    except FileNotFoundError:
        problem = "no such file" if is_file else "no such recipe, and not a .toml file"
        text = f"{problem}; {did_you_mean(name, names())}"
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, or a huge number
        reason = printable((isinstance(error, OSError) and error.strerror) or error, 100)
        text = f"not a readable TOML file ({reason}); correct it or give another recipe"
    else:
        return name, {key: value for key, value in values.items() if key not in ("about", "recipe")}, []
    return name, {}, [Problem("recipe", f"{printable(name)}: {text}")]
