"""The command line: the commands by name, and usage errors as single lines."""

import os
import re
import sys
from importlib import import_module
from itertools import pairwise
from typing import Annotated, cast

import typer
from pydantic import ValidationError

from mnist_accel import __version__
from mnist_accel.commands.common import for_typer, leave, print_errors
from mnist_accel.config.settings import TrainConfig, option_name, settings
from mnist_accel.errors import EXIT_REFUSED, did_you_mean
from mnist_accel.hardware.cores import shorten_waiting_if_busy

UsageError = cast("type[Exception]", typer.BadParameter.__base__)  # of all errors in a command line; Typer has no name
HINTS = {
    option_name(name): f"it is set in recipes: write {name} = … into a .toml file and give --recipe FILE.toml"
    for name, known in settings(TrainConfig).items()
    if not known.on_command_line
} | {
    "--device": "a GPU is used automatically; --cpu turns that off",
    "--gpu": "a GPU is used automatically; --cpu turns that off",
    "--learning-rate": "give --lr",
    "--resume": "give auto, or the path of a checkpoint: --resume auto",
    "test": "give mnist-accel evaluate to test weights, or mnist-accel certify to test this machine",
    "help": "give mnist-accel --help",
}
"""Hints for names that other programs use, and for settings that are no options."""

app = typer.Typer(
    name="mnist-accel",
    epilog="Exit codes: 0 success; 1 the run failed, or there are warnings; 2 refused, and the message says what to "
    "change; 3 below --target-accuracy; 70 unexpected error; 75 another process was lost; 129 stopped by a closed "
    "terminal (SIGHUP), 130 by Ctrl-C, 143 by SIGTERM; 141 the reader of stdout has closed it.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
NAMES = (
    *("train", "recipes", "evaluate", "data", "compare", "report", "predict", "demo", "export", "inspect"),
    *("bench", "certify", "diff", "doctor"),
)
COMMANDS = [getattr(import_module(f"mnist_accel.commands.{name}"), name) for name in NAMES]
for command in COMMANDS:
    app.command()(for_typer(command))


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Train a digit classifier on any hardware with one training loop, and check that the result is right.

    For example: mnist-accel train --help
    """
    if version:
        print(f"mnist-accel {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and exit."""
    os.environ.pop("MPLBACKEND", None)  # pictures need no window, and a name from another program can be invalid
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else lost processes cause pages of warnings from C++
    shorten_waiting_if_busy()
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="mnist-accel", standalone_mode=False)
    except UsageError as error:
        print_errors([_usage_line(error)], is_shared=True)
        code = EXIT_REFUSED
    leave(code or 0)


def _usage_line(error: Exception) -> str:
    """One line that says what is wrong and what to do, from an error of Typer."""
    text: str = error.format_message()  # type: ignore[attr-defined]
    hint = f"see mnist-accel {sys.argv[1]} --help" if sys.argv[1] in NAMES else "see mnist-accel --help"
    option, near = getattr(error, "option_name", None), getattr(error, "possibilities", None)
    swallowed = [option for option, value in pairwise(sys.argv) if option in HINTS and value.startswith("--")]
    if "unexpected extra argument" in text and swallowed:  # the parser took the next option for the value
        wrong, hint = f"{swallowed[0]}: needs a value", HINTS[swallowed[0]]
    elif option and "requires an argument" in text:
        wrong, hint = f"{option}: needs a value", HINTS.get(option, hint)
    elif option and "does not take a value" in text:
        wrong = f"{option}: takes no value"
    elif option:
        wrong, hint = f"{option}: no such option", HINTS.get(option) or (did_you_mean(option, near) if near else hint)
    elif isinstance(error, typer.BadParameter) and error.param and isinstance(error.__cause__, ValidationError):
        found = error.__cause__.errors()[0]
        reason = found["msg"].removeprefix("Value error, ").rstrip(".").replace("Input should", "it must")
        wrong = f"{error.param.opts[0]} {found['input']}: {reason}"
    elif isinstance(error, typer.BadParameter) and error.param and text.startswith("Missing option"):
        choices = "|".join(re.findall(r"\t([\w-]+)", text))
        wrong, hint = f"{error.param.opts[0]}: is missing", f"give one of {choices}"
    elif missing := re.match("Missing argument '(.*?)'", text):
        example = re.search(rf"mnist-accel {sys.argv[1]} .*", COMMANDS[NAMES.index(sys.argv[1])].__doc__ or "")
        wrong = f"{sys.argv[1]}: {missing[1].upper()} is missing"
        hint = f"for example: {example[0]}" if example else hint
    elif unknown := re.match(r"No such command '(.*?)'\.", text, re.DOTALL):
        wrong, hint = f"{unknown[1]}: no such command", HINTS.get(unknown[1]) or did_you_mean(unknown[1], NAMES)
    else:
        wrong = re.sub(r"Got unexpected extra argument.* \((.*)\)", r"\1: unexpected argument", text.rstrip("."))
    return f"{wrong}; {hint}"
