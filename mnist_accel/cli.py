"""The command line: the commands by name."""

from __future__ import annotations

from typing import Annotated

import typer

from mnist_accel import __version__
from mnist_accel.commands.demo import demo
from mnist_accel.commands.doctor import doctor
from mnist_accel.commands.evaluate import evaluate
from mnist_accel.commands.selftest import selftest
from mnist_accel.commands.train import train

app = typer.Typer(
    name="mnist-accel",
    help="Train a digit classifier on any hardware with one loop, and prove that the result is right.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (train, evaluate, demo, selftest, doctor):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mnist-accel {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Train a digit classifier on any hardware with one loop, and prove that the result is right."""


def main() -> None:
    """Run the command line and exit."""
    app()
