import tomllib
from json import dumps
from textwrap import fill, indent

from mnist_accel.commands.common import JsonOption
from mnist_accel.config import recipe
from mnist_accel.config.settings import TrainConfig, settings


def recipes(json: JsonOption = False) -> int:
    """List the recipes, and the keys of a recipe file with their defaults, meanings and limits."""
    texts = {name: (recipe.FOLDER / f"{name}.toml").read_text("utf-8") for name in recipe.names()}
    keys = {name: vars(known) for name, known in settings(TrainConfig).items() if name != "recipe"}
    if json:
        found = {"recipes": {name: tomllib.loads(text) for name, text in texts.items()}, "keys": keys}
        print(dumps(found, default=lambda value: getattr(value, "__name__", str(value))))  # types and paths
        return 0
    for name, text in texts.items():
        print(f"{name}:\n\n{indent(text, '    ')}")
    print("Keys of a recipe file, with their defaults. A file sets those that differ.\n")
    for name, key in keys.items():
        limits = f" A number {key['limits']}." if key["limits"] else ""
        choices = f" One of {', '.join(key['choices'])}." if key["choices"] else ""
        print(name if key["default"] is None else f"{name} = {dumps(key['default'], default=str)}")
        text = f"{key['meaning']}{choices}{limits}"
        print(fill(text, 100, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False))
    return 0
