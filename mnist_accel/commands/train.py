"""`mnist-accel train`."""

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnist_accel.commands.common import JsonOption, QuietOption, print_errors, print_json
from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import EXIT_BELOW_TARGET, UserError
from mnist_accel.hardware.cores import launched_rank

if TYPE_CHECKING:
    from mnist_accel.reports.console import TrainingConsole
    from mnist_accel.training.events import Observer

SeedsOption = Annotated[
    int | None, typer.Option(min=1, max=1000, metavar="N", help="Train a group of runs with N seeds, from --seed on.")
]

TrackOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Also send the figures to this tracker, for example tensorboard. Repeatable."),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Record samples, loss and a summary of each layer, for mnist-accel diff."),
]
TraceStepsOption = Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Steps that --trace records.")]


def train(
    config: TrainConfig,
    seeds: SeedsOption = None,
    track: TrackOption = None,
    trace: TraceOption = None,
    trace_steps: TraceStepsOption = 50,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Train a digit classifier and write its weights, record, metrics and pictures to the output folder.

    Options win over the recipe, and the recipe wins over the defaults.

    For example:
      mnist-accel train
      mnist-accel train --epochs 1 --train-samples 10000 --output-dir first-try
      mnist-accel train --seeds 5 --recipe speedrun --output-dir group
      mnist-accel train --processes 2 --target-accuracy 0.99 --json
      accelerate launch -m mnist_accel train
    """
    from mnist_accel import api, groups
    from mnist_accel.hardware.signals import StopRequests
    from mnist_accel.reports.console import TrainingConsole, result_console, stderr_console
    from mnist_accel.reports.run_summary import group_headline, headline
    from mnist_accel.training.events import Observer, Observers

    is_main = launched_rank() == 0
    console = TrainingConsole(stderr_console(), results=result_console(to_stderr=json), quiet=quiet)
    observer = _with_trackers(console, track or []) if is_main else Observer()
    if trace and seeds:
        raise UserError(f"--trace {trace}: a trace is of one run, not of a group", "leave --seeds out")
    if trace:
        from mnist_accel.training.trace import Tracer

        observer = Observers(observer, Tracer(trace, trace_steps))
    for text in config.warnings() if is_main else ():
        console.notice(text)
    stop = functools.partial(StopRequests, leaves_at_once=True)
    try:
        if seeds:
            group = groups.train_group(config, seeds, observer, stop=stop)
            values = group.as_json()
            accuracy, text, files = values["mean"], group_headline(values), [run.path for run in group.runs]
        else:
            result = api.train(config, observer, stop=stop())
            accuracy, text, values = result.test_accuracy, headline(result), result.as_json()
            files = [config.output_dir / name for name in api.TRAIN_FILES]
    finally:
        with contextlib.suppress(OSError):  # the terminal may be closed
            console.close()
    below = config.target_accuracy is not None and accuracy < config.target_accuracy
    if is_main:
        console.show_result(text, files)
        if below:
            print_errors([f"test accuracy {accuracy:.4f} is below the target {config.target_accuracy}"])
        if json:
            print_json(values)
    return EXIT_BELOW_TARGET if below else 0


def _with_trackers(console: "TrainingConsole", names: list[str]) -> "Observer":
    """The console and, if there are `names`, the trackers."""
    if not names:
        return console
    from mnist_accel.reports.tracking import Tracking
    from mnist_accel.training.events import Observers

    return Observers(console, Tracking(names, console.notice))
