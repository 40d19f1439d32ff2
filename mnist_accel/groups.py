"""Groups of runs: one configuration, trained with several seeds or folds, one run after another."""

from typing import TYPE_CHECKING

from mnist_accel import api
from mnist_accel.errors import UserError
from mnist_accel.files.run_record import METRICS_FILE
from mnist_accel.reports.runs import Group, Run, differences
from mnist_accel.training.events import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from mnist_accel.config.settings import TrainConfig
    from mnist_accel.hardware.signals import StopRequests

__all__ = ["train_group"]


def train_group(
    config: "TrainConfig",
    seeds: int = 1,
    observer: Observer | None = None,
    *,
    folds: int | None = None,
    stop: "Callable[[], StopRequests] | None" = None,
) -> Group:
    """Train with the seeds `config.seed`, `config.seed + 1`, …, each in its own sub-folder of `config.output_dir`.

    With `resume="auto"`, finished runs are kept and an unfinished one is resumed. Every process of a distributed run
    calls this; on several machines, the output folder is a shared one.

    Args:
        config: the settings of all runs.
        seeds: number of runs.
        observer: hears the events of each run.
        folds: instead of several seeds, make one run for each of so many parts of the training set: it is tested on
            this part and trained on the others.
        stop: makes the requests to stop of one run; by default signals stop a run after it has saved.

    Raises:
        UserError: the machine, the data or the output folder does not allow it.
    """
    if config.resume not in ("auto", "never"):
        raise UserError(f"--resume {config.resume}: one checkpoint cannot continue a group of runs", "give auto")
    observer = observer or Observer()
    folder, seed, runs = config.output_dir, config.seed, []
    if folds:
        members = [{"fold": f"{part}/{folds}", "output_dir": folder / f"fold-{part}"} for part in range(1, folds + 1)]
    else:
        members = [{"seed": each, "output_dir": folder / f"seed-{each}"} for each in range(seed, seed + seeds)]
    for changes in members:
        member = config.with_changes(**changes)
        if config.resume == "auto" and (member.output_dir / METRICS_FILE).exists():
            observer.notice(f"the run in {member.output_dir} is finished and kept")
            _require_same_settings(member)
        else:
            api.train(member, observer, stop=stop() if stop else None)
        runs.append(Run.load(member.output_dir))
    return Group(folder, tuple(runs))


def _require_same_settings(config: "TrainConfig") -> None:
    """Raise UserError where the finished run in `config.output_dir` had other settings than `config`."""
    for name, (finished, wanted) in differences(Run.load(config.output_dir).settings, config.as_json()).items():
        raise UserError(
            f"{config.output_dir}: the run there is finished, with {name} {finished} instead of {wanted}",
            "give the same settings, or another --output-dir",
        )
