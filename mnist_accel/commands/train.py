from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish, print_errors
from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import EXIT_BELOW_TARGET, UserError
from mnist_accel.hardware.cores import launched_rank

if TYPE_CHECKING:
    from mnist_accel.reports.console import TrainingConsole
    from mnist_accel.training.events import Observer


def train(
    config: TrainConfig,
    seeds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Train N runs, seeded from --seed on.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, metavar="N", help="Train N runs for cross-validation.")] = None,
    lr_find: Annotated[bool, typer.Option("--lr-find", help="Only suggest a learning rate, in one epoch.")] = False,
    track: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Also send the figures to this tracker. Repeatable.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE", help="Record the first steps, for diff.")] = None,
    trace_steps: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="Steps that --trace records.")] = 50,
    json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print notices and errors only.")] = False,
) -> int:
    """Train a digit classifier and write its weights, record, metrics and pictures to the output folder.

    For example:
      mnist-accel train
      mnist-accel train --epochs 1 --train-samples 10000 --output-dir first-try
      mnist-accel train --seeds 5 --recipe speedrun --output-dir group
      mnist-accel train --folds 5 --dataset csv:train.csv --output-dir folds
      mnist-accel train --processes 2 --target-accuracy 0.99 --json
      accelerate launch -m mnist_accel train
    """
    if bool(seeds) + bool(folds) + bool(trace) + lr_find > 1:
        raise UserError("--seeds, --folds and --lr-find cannot be combined, nor with --trace", "give one of them")
    from mnist_accel.data import datasets
    from mnist_accel.reports.console import TrainingConsole
    from mnist_accel.reports.tables import result_console

    is_main = launched_rank() == 0
    results = result_console(to_stderr=json)
    with closing(TrainingConsole(result_console(to_stderr=True), results=results, quiet=quiet)) as console:
        datasets.read_ahead(config.dataset, config.data_dir, console.notice if is_main else lambda _: None)
        observer = _observers([console] if is_main else [], track, (trace, trace_steps) if trace else None)
        accuracy, text, values, files = _work(config, observer, seeds, folds, lr_find=lr_find)
    below = config.target_accuracy is not None and accuracy < config.target_accuracy
    if is_main:
        console.show_result(text, files)
    if below:
        print_errors([f"test accuracy {accuracy:.4f} is below the target {config.target_accuracy}"], is_shared=True)
    return finish(values, json=json and is_main, code=EXIT_BELOW_TARGET if below else 0)


def _work(
    config: TrainConfig, observer: "Observer", seeds: int | None, folds: int | None, *, lr_find: bool
) -> "tuple[float, str, object, list[Path]]":
    """Test accuracy (1 without a test), result in a sentence and for `--json`, and written files."""
    from mnist_accel import api, groups
    from mnist_accel.reports.console import group_headline, headline

    if lr_find:
        found = api.find_learning_rate(config, observer)
        return 1.0, f"suggested learning rate: --lr {found.lr:g}", found, [config.output_dir / api.LR_FIND_FILE]
    if seeds or folds:
        group = groups.train_group(config, seeds or 1, observer, folds=folds)
        values = group.as_json()
        return values["mean"], group_headline(values), values, [run.path for run in group.runs]
    result = api.train(config, observer)
    files = [config.output_dir / name for name in api.TRAIN_FILES]
    return result.test_accuracy, headline(result), result.as_json(), files


def _observers(main: "list[TrainingConsole]", track: list[str] | None, trace: tuple[Path, int] | None) -> "Observer":
    """The console and the trackers, on the main process alone; and the tracer, on every process."""
    from mnist_accel.training.events import Observers
    from mnist_accel.training.trace import Tracer

    found: list[Observer] = [*main]
    if main and track:
        from mnist_accel.reports.tracking import Tracking

        found.append(Tracking(track, main[0].notice))
    if trace:
        found.append(Tracer(*trace))
    return Observers(*found)
