"""Shared by the commands: options made from settings, errors as single lines, exit codes."""

import contextlib
import functools
import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from mnist_accel.config import recipe
from mnist_accel.config.base import Setting
from mnist_accel.config.settings import RunConfig, TrainConfig, option_name, settings
from mnist_accel.errors import EXIT_BUG, EXIT_INTERRUPTED, ConfigError, UserError, printable
from mnist_accel.hardware.cores import launched_rank, launched_world_size

CLOSED_OUTPUT = 141  # exit code where the reader of stdout has gone (128 + SIGPIPE), as other programs have it

_parameter = functools.partial(inspect.Parameter, kind=inspect.Parameter.POSITIONAL_OR_KEYWORD)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON, the last line of stdout.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="FILE.py:CLASS", help="Network of your own that the weights belong to.")
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def for_typer(command: Callable[..., int]) -> Callable[..., None]:
    """A command as Typer runs it: with `--debug`, errors as lines on stderr, and its result as the exit code.

    An argument `config` becomes an option for each setting. The configuration checks them and reports all problems.
    """
    own = dict(inspect.signature(command, eval_str=True).parameters)
    config = own.pop("config", None)
    known = settings(config.annotation) if config else {}
    parameters = [_option(name, setting) for name, setting in known.items() if setting.on_command_line]
    parameters += [*own.values(), _parameter("debug", default=False, annotation=DebugOption)]

    @functools.wraps(command)
    def run(debug: bool, **values: Any) -> None:
        def work() -> int:
            extras = {name: values.pop(name) for name in own}
            return _run_configured(command, config.annotation(**values), extras) if config else command(**extras)

        leave(guarded(work, debug=debug))

    run.__doc__ = (command.__doc__ or "").replace("For example:\n", "\b\n    For example:\n")  # keeps the lines apart
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # mypy: functions have none
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _option(name: str, known: Setting) -> inspect.Parameter:
    """The command-line option of a setting."""
    default = "" if known.default is None or known.default is False else f" [default: {known.default}]"
    choices = recipe.names() if name == "recipe" else [choice for choice in known.choices if ":" not in choice]
    flag = option_name(name)
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if known.kind is bool and known.default is None else flag,
        help=known.meaning + default,
        show_default=False,
        metavar="|".join(known.choices) or {bool: None, int: "N", float: "X", Path: "PATH"}.get(known.kind, "NAME"),
        autocompletion=lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)],
    )
    return _parameter(name, default=None, annotation=Annotated[(bool if known.kind is bool else str) | None, option])


def _run_configured(command: Callable[..., int], config: RunConfig, extras: dict[str, Any]) -> int:
    """Run a command; with `processes`, run the same command line in that many processes."""
    restarts = config.max_restarts if isinstance(config, TrainConfig) else 0
    if not config.processes or launched_world_size() or config.processes + restarts == 1:
        return command(config, **extras)
    from mnist_accel.hardware.launch import run_processes

    return run_processes(
        config.processes, sys.argv[1:], on_cpu=config.cpu, output_dir=config.output_dir, restarts=restarts
    )


def finish(values: object, *, json: bool, code: int = 0) -> int:
    """The exit code of a command; with `json`, its results, which may be dataclasses, are the last line of stdout."""
    if json:
        print(dumps(values, default=asdict, allow_nan=False), flush=True)
    return code


def print_errors(lines: list[str], *, is_shared: bool = False, label: str = "error: ") -> None:
    """Print one line per error on stderr; on the main process alone if all processes have the same (`is_shared`)."""
    if launched_rank() != 0:
        time.sleep(2)  # the main process prints first: the launcher stops all processes when one leaves
        if is_shared:
            return
    with contextlib.suppress(OSError):  # the terminal may be closed
        for line in lines:
            print(f"mnist-accel: {label}{printable(line, longest=1000)}", file=sys.stderr, flush=True)


def guarded(work: Callable[[], int], *, debug: bool) -> int:
    """Do `work` and return its exit code. Errors become lines on stderr."""
    try:
        code = work()
        sys.stdout.flush()
        return code
    except (BrokenPipeError, SystemExit) as error:
        if not isinstance(error.__context__ or error, BrokenPipeError):
            raise  # Rich alone raises SystemExit while it handles a BrokenPipeError
        # Python flushes stdout once more when it ends, and would report the error then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_OUTPUT
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exception(error)
        lines, code, is_shared = _described(error)
        print_errors(lines, is_shared=is_shared, label="" if code > 128 else "error: ")
        return code


def _described(error: Exception | KeyboardInterrupt) -> tuple[list[str], int, bool]:
    """The lines to print, the exit code, and whether every process of the run has this error."""
    if isinstance(error, KeyboardInterrupt):
        return ["stopped by Ctrl-C; files of earlier runs are unchanged"], EXIT_INTERRUPTED, False
    if "torch" in sys.modules and not isinstance(error, UserError):
        from mnist_accel.hardware.peers import lost_contact

        error = lost_contact(error) or error
    if not isinstance(error, UserError):
        text = printable(f"{type(error).__name__}: {error}")
        return [f"unexpected error: {text}; run again with --debug and report the output"], EXIT_BUG, False
    problems = error.problems if isinstance(error, ConfigError) else []
    return [found.shown(option_name) for found in problems] or [str(error)], error.exit_code, error.is_shared


def leave(code: int) -> NoReturn:
    """End this process, after Ctrl-C at once. One of several skips the interpreter's shutdown: threads can abort it."""
    if code == EXIT_INTERRUPTED or (launched_world_size() or 1) > 1:
        with contextlib.suppress(OSError):  # the reader may have gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
