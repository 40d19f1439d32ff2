"""The command line: parse, configure, one call, exit code. Imports torch only when there is work to do."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from mnist_accel import __version__
from mnist_accel.config import EvaluateConfig, RunConfig, TrainConfig, metavar, option_name, settings
from mnist_accel.cores import launched_rank, launched_world_size
from mnist_accel.errors import (
    EXIT_BELOW_TARGET,
    EXIT_BUG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    ConfigError,
    UserError,
)

app = typer.Typer(
    name="mnist-accel",
    help="Train a digit classifier on any hardware with one loop, and prove that the result is right.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

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
                    option_name(name), help=known.meaning + shown, show_default=False, metavar=metavar(config, name)
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
            code = _guarded(lambda: command(config(**values), **extras), debug=debug)
            if "torch" in sys.modules:
                from mnist_accel import hardware

                hardware.stop()
            raise SystemExit(code)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = annotations
        return run

    return decorate


@app.command()
@configured_by(TrainConfig)
def train(config: TrainConfig, json: JsonOption = False, quiet: QuietOption = False) -> int:
    """Train a digit classifier; leave weights, record, metrics and pictures in the output folder.

    Single options win over the recipe, the recipe over the defaults.

    For example:

      mnist-accel train

      mnist-accel train --epochs 1 --train-samples 10000 --output-dir first-try

      mnist-accel train --processes 2 --target-accuracy 0.99 --json

      accelerate launch -m mnist_accel train
    """
    if config.processes and (config.processes > 1 or config.max_restarts) and launched_world_size() is None:
        return _launch(config)
    from mnist_accel import training
    from mnist_accel.console import TrainingConsole, stderr_console
    from mnist_accel.observers import Silence

    console = TrainingConsole(stderr_console(), quiet=quiet)
    try:
        result = training.train(config, console if launched_rank() == 0 else Silence())
    finally:
        with contextlib.suppress(OSError):  # the terminal may be gone
            console.close()
    below = config.target_accuracy is not None and result.test_accuracy < config.target_accuracy
    if launched_rank() == 0:
        folder = config.output_dir
        console.run_finished(
            f"{result.dataset}: test accuracy {result.test_accuracy:.2%} by epoch {result.chosen_epoch}'s weights, "
            f"{result.train_seconds:.1f} s of training, {result.wall_seconds:.1f} s in all",
            [folder / name for name in training.RESULT_FILES],
        )
        if below:
            _print_errors([f"test accuracy {result.test_accuracy:.4f} is below the target {config.target_accuracy}"])
        if json:
            _print_json(result.as_json())
    return EXIT_BELOW_TARGET if below else 0


@app.command()
@configured_by(EvaluateConfig)
def evaluate(config: EvaluateConfig, json: JsonOption = False) -> int:
    """Test saved weights: accuracy with its interval, figures by class, confusion matrix, worst mistakes.

    For example:

      mnist-accel evaluate --weights mnist_cnn_model.pth

      mnist-accel evaluate --weights other.pth --dataset mnist --mixed-precision no --json
    """
    if config.processes and config.processes > 1 and launched_world_size() is None:
        return _launch(config)
    from mnist_accel import evaluation
    from mnist_accel.console import TrainingConsole, stderr_console
    from mnist_accel.observers import Silence
    from mnist_accel.report import print_report

    console = stderr_console()
    progress = TrainingConsole(console)
    try:
        result = evaluation.evaluate(config, progress if launched_rank() == 0 else Silence())
    finally:
        progress.close()
    if launched_rank() == 0:
        print_report(console, result, [config.output_dir / name for name in evaluation.RESULT_FILES])
        if json:
            _print_json(result.as_json())
    return 0


@app.command()
def selftest(json: JsonOption = False, debug: DebugOption = False) -> None:
    """Prove the promises on this machine, in about a minute: what one runs on a new server.

    Trains and evaluates; kills, resumes and compares; one against two processes; counts; compares precisions.

    For example:

      mnist-accel selftest

      mnist-accel selftest --json
    """
    raise SystemExit(_guarded(lambda: _selftest(json), debug=debug))


def _selftest(as_json: bool) -> int:
    from dataclasses import asdict

    from mnist_accel.console import stderr_console
    from mnist_accel.report import print_check
    from mnist_accel.selftest import run_selftest

    console = stderr_console()
    checks = run_selftest(lambda check: print_check(console, check))
    passed = all(check.passed is not False for check in checks)
    if as_json:
        _print_json({"passed": passed, "checks": [asdict(check) for check in checks]})
    return 0 if passed else EXIT_FAILED


@app.command()
def doctor(
    data_dir: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("data"),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what this machine and its settings are, and warn of what commonly goes wrong. Exit code 1 with warnings.

    For example:

      mnist-accel doctor

      mnist-accel doctor --data-dir data --json
    """
    raise SystemExit(_guarded(lambda: _doctor(data_dir, json), debug=debug))


def _doctor(data_dir: Path, as_json: bool) -> int:
    from mnist_accel.console import stderr_console
    from mnist_accel.doctor import examine
    from mnist_accel.report import print_findings

    findings = examine(data_dir)
    print_findings(stderr_console(), findings.facts, findings.warnings)
    if as_json:
        _print_json({"facts": findings.facts, "warnings": findings.warnings})
    return EXIT_FAILED if findings.warnings else 0


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mnist-accel {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Train a digit classifier on any hardware with one loop, and prove that the result is right."""


def _launch(config: RunConfig) -> int:
    from mnist_accel.launch import run_processes

    assert config.processes
    restarts = config.max_restarts if isinstance(config, TrainConfig) else 0
    return run_processes(
        config.processes, sys.argv[1:], on_cpu=config.cpu, max_restarts=restarts, output_dir=config.output_dir
    )


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values, allow_nan=False), flush=True)


def _print_errors(lines: list[str], *, is_shared: bool = False, label: str = "error: ") -> None:
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


def _guarded(work: Callable[[], int], *, debug: bool) -> int:
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
            from mnist_accel.hardware import lost_contact

            if (lost := lost_contact(error)) is not None:
                lines, code = [str(lost)], lost.exit_code
    if debug:
        traceback.print_exception(problem)
    _print_errors(lines, is_shared=is_shared, label="" if code > 128 else "error: ")
    return code


def main() -> None:
    """Run the command line and exit."""
    app()
