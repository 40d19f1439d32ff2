"""What the commands share: options from settings, errors as lines, exit codes."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NoReturn

import typer

from mnist_accel.config import recipes
from mnist_accel.config.settings import RunConfig, TrainConfig, metavar, option_name, settings
from mnist_accel.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_REFUSED, ConfigError, UserError
from mnist_accel.hardware.cores import launched_rank, launched_world_size

MAIN_PROCESS_SPEAKS_SECONDS = 2.0

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print notices and errors only.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def configured_by(config: type[RunConfig]) -> Callable[[Callable[..., int]], Callable[..., None]]:
    """A command with an option for each setting of `config`, called with the finished configuration.

    Options are read as text and checked by the configuration, so that all problems are reported together.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., None]:
        parameters, annotations = [], {}
        for name, known in settings(config).items():
            if not known.on_command_line:
                continue
            shown = "" if known.default is None or known.default is False else f" [default: {known.default}]"
            if isinstance(known.default, bool):
                option = typer.Option(option_name(name), help=known.meaning, show_default=False)
                annotations[name] = Annotated[bool | None, option]
            else:
                option = typer.Option(
                    option_name(name),
                    help=known.meaning + shown,
                    show_default=False,
                    metavar=metavar(config, name),
                    autocompletion=completing(recipes.names() if name == "recipe" else known.choices),
                )
                annotations[name] = Annotated[str | None, option]
        own = inspect.signature(command, eval_str=True).parameters
        annotations |= {name: own[name].annotation for name in own if name != "config"} | {"debug": DebugOption}
        for name, annotation in annotations.items():
            default = own[name].default if name in own else (False if name == "debug" else None)
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )

        @functools.wraps(command)
        def run(debug: bool, **values: Any) -> None:
            extras = {name: values.pop(name) for name in own if name != "config"}
            leave(guarded(lambda: command(config(**values), **extras), debug=debug))

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = annotations
        return run

    return decorate


def completing(choices: Iterable[str]) -> Callable[[str], list[str]]:
    """What a shell offers for an option's value; where it is nothing, shells offer files."""

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def launch(config: RunConfig) -> int:
    """Run this very command line in as many processes as `config` says."""
    from mnist_accel.hardware.launch import run_processes

    assert config.processes
    restarts = config.max_restarts if isinstance(config, TrainConfig) else 0
    return run_processes(
        config.processes, sys.argv[1:], on_cpu=config.cpu, max_restarts=restarts, output_dir=config.output_dir
    )


def print_json(values: dict[str, Any] | list[dict[str, Any]]) -> None:
    """The last line of stdout."""
    print(json.dumps(values, allow_nan=False), flush=True)


def print_errors(lines: list[str], *, is_shared: bool = False, label: str = "error: ") -> None:
    """What is wrong and what to do, a line each; from one process alone.

    The other processes wait, for the launcher stops all when the first one leaves: when it is the main process that
    leaves, it has spoken for all; a process that is still here then has met an error of its own.
    """
    if launched_rank() != 0:
        time.sleep(MAIN_PROCESS_SPEAKS_SECONDS)
        if is_shared:
            return
    with contextlib.suppress(OSError):  # a terminal that was closed hears nothing
        for line in lines:
            print(f"mnist-accel: {label}{' '.join(line.split())}", file=sys.stderr, flush=True)


def guarded(work: Callable[[], int], *, debug: bool) -> int:
    """The exit code of `work`; errors become lines on stderr."""
    problem: BaseException
    is_shared = False
    try:
        return work()
    except KeyboardInterrupt as interrupt:
        problem, code = interrupt, EXIT_INTERRUPTED
        lines = ["stopped by Ctrl-C; files of earlier runs are as they were"]
    except ConfigError as error:
        problem, lines, code = error, error.problems, EXIT_REFUSED
    except UserError as error:
        problem, lines, code, is_shared = error, [str(error)], error.exit_code, error.is_shared
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        problem, code = error, EXIT_BUG
        lines = [f"internal error, {text}; run again with --debug and report what it shows"]
        if "torch" in sys.modules:
            from mnist_accel.hardware.accelerator import lost_contact

            if (lost := lost_contact(error)) is not None:
                lines, code = [str(lost)], lost.exit_code
    if debug:
        traceback.print_exception(problem)
    print_errors(lines, is_shared=is_shared, label="" if code > 128 else "error: ")
    return code


def leave(code: int) -> NoReturn:
    """End this process. One of several skips the interpreter's own end, in which threads that talk can abort it."""
    if (launched_world_size() or 1) > 1:
        with contextlib.suppress(OSError):  # whoever listened may be gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    raise SystemExit(code)
