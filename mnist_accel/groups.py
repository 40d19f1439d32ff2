"""Groups of runs: one configuration, trained with several seeds or folds, one run after another."""

from typing import Any

from mnist_accel import api
from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import UserError
from mnist_accel.files.run_record import METRICS_FILE
from mnist_accel.reports.runs import Group, Run, differences
from mnist_accel.training.events import Observer


def train_group(
    config: TrainConfig, seeds: int = 1, observer: Observer | None = None, *, folds: int | None = None
) -> Group:
    """Train with the seeds `config.seed`, `config.seed + 1`, …, each in its own sub-folder of `config.output_dir`.

    With `folds` in place of seeds there is one run for each of so many parts of the training set, which is then the
    test set. With `resume="auto"`, finished runs are kept and an unfinished one is resumed. Every process of a
    distributed run calls this; several machines share the output folder. Raises UserError as `train` does.
    """
    if config.resume not in ("auto", "never"):
        raise UserError(f"--resume {config.resume}: one checkpoint cannot continue a group of runs", "give auto")
    observer = observer or Observer()
    members: dict[str, Any] = {f"seed-{seed}": {"seed": seed} for seed in range(config.seed, config.seed + seeds)}
    if folds:
        members = {f"fold-{part}": {"fold": f"{part}/{folds}"} for part in range(1, folds + 1)}
    runs = []
    for name, changes in members.items():
        path = config.output_dir / name
        member = config.with_changes(**changes, output_dir=path)
        if config.resume == "auto" and (path / METRICS_FILE).exists():
            observer.notice(f"the run in {path} is finished and kept")
            settings = [Run.load(path).settings, member.model_dump(mode="json")]
            for setting, (found, wanted) in differences(settings).items():
                problem = f"{path}: the run there is finished, with {setting} {found} instead of {wanted}"
                raise UserError(problem, "give the same settings, or another --output-dir")
        else:
            api.train(member, observer)
        runs.append(Run.load(path))
    return Group(config.output_dir, tuple(runs))
