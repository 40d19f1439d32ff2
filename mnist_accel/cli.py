"""The command line: the commands by name."""

from __future__ import annotations

from typing import Annotated

import typer

from mnist_accel import __version__
from mnist_accel.commands.bench import bench
from mnist_accel.commands.demo import demo
from mnist_accel.commands.doctor import doctor
from mnist_accel.commands.evaluate import evaluate
from mnist_accel.commands.export import export
from mnist_accel.commands.inspect import inspect
from mnist_accel.commands.predict import predict
from mnist_accel.commands.selftest import selftest
from mnist_accel.commands.train import train

app = typer.Typer(
    name="mnist-accel",
    epilog="Exit codes: 0 done; 1 failed on the way, or warnings; 2 refused, and the message says what to change; "
    "3 below --target-accuracy; 70 an unforeseen error; 75 another process was lost; 130 stopped by Ctrl-C, "
    "143 by SIGTERM.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (train, evaluate, predict, demo, export, inspect, bench, selftest, doctor):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mnist-accel {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train a digit classifier on any hardware with one loop, and prove that the result is right.

    For example:

      mnist-accel train

      mnist-accel evaluate --weights mnist_cnn_model.pth

      mnist-accel train --help
    """


def main() -> None:
    """Run the command line and exit."""
    app()
