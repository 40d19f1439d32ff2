"""`mnist-accel recipes`."""

import tomllib
from json import dumps
from pathlib import Path
from textwrap import fill, indent

from mnist_accel.commands.common import JsonOption, print_json
from mnist_accel.config import recipe
from mnist_accel.config.settings import TrainConfig, settings


def recipes(json: JsonOption = False) -> int:
    """List the recipes, and the keys of a recipe file with their defaults, meanings and limits.

    For example:

      mnist-accel recipes

      mnist-accel train --recipe my-recipe.toml
    """
    texts = {name: (recipe.FOLDER / f"{name}.toml").read_text("utf-8") for name in recipe.names()}
    known = {name: vars(found) for name, found in settings(TrainConfig).items() if name != "recipe"}
    shown = ("default", "meaning", "choices", "limits")
    keys = {name: {part: found[part] for part in shown} for name, found in known.items()}
    for key in keys.values():
        key["default"] = str(key["default"]) if isinstance(key["default"], Path) else key["default"]
    if json:
        print_json({"recipes": {name: tomllib.loads(text) for name, text in texts.items()}, "keys": keys})
        return 0
    for name, text in texts.items():
        print(f"{name}:\n\n{indent(text, '    ')}")
    print("Keys of a recipe file, with their defaults. A file sets those that differ.\n")
    for name, key in keys.items():
        limits = f"A number {key['limits']}." if key["limits"] else ""
        choices = f"One of {', '.join(key['choices'])}." if key["choices"] else ""
        print(name if key["default"] is None else f"{name} = {dumps(key['default'])}")
        text = " ".join(filter(None, (key["meaning"], limits, choices)))
        print(fill(text, 100, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False))
    return 0
