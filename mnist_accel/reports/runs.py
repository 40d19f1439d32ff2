"""Runs and groups of runs, read back from their files."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter

from mnist_accel.config.settings import EvaluateConfig
from mnist_accel.data.digits import DataSet
from mnist_accel.errors import UserError
from mnist_accel.files import run_record
from mnist_accel.files.untrusted import read_limited, refusing
from mnist_accel.reports.tables import differing
from mnist_accel.training.evaluate import EvaluateResult, run_evaluation
from mnist_accel.training.events import EpochRecord, Observer
from mnist_accel.training.metrics import Predictions

LARGEST_FILE = 2**28  # bytes of metrics.jsonl and of step_losses.csv that are read
IRRELEVANT = ("seed", "fold", "output_dir", "data_dir", "resume", "keep", "checkpoint_every", "max_restarts", "timeout")


class Evaluation(NamedTuple):
    """A model on a test set."""

    result: EvaluateResult
    dataset: DataSet
    predictions: Predictions


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder: the JSON beside the weights, the epochs, the mean loss of each step.

    `settings` are the whole configuration as JSON values; accuracy and loss, in nats, are of the final weights.
    """

    path: Path
    record: dict[str, Any] = field(repr=False)
    history: tuple[EpochRecord, ...] = field(repr=False)
    step_losses: tuple[float, ...] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    seed: int = field(repr=False)
    test_accuracy: float = field(repr=False)
    test_loss: float = field(repr=False)

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """Read the run in the folder `path`. Raises UserError if no finished run is there, or a file is damaged."""
        folder = Path(path)
        record = run_record.read_record(folder / run_record.WEIGHTS_FILE)
        if record is None:
            raise UserError(f"{folder}: no finished run is there", "train first, or --resume an unfinished run")
        with refusing(UserError, f"{folder}: not a whole run", "train it again"):
            epochs, rows = (
                read_limited(folder / name, LARGEST_FILE).splitlines()
                for name in (run_record.METRICS_FILE, run_record.STEP_LOSSES_FILE)
            )
            history = tuple(map(TypeAdapter(EpochRecord).validate_json, epochs))
            losses = tuple(float(row.split(b",")[2]) for row in rows[1:])
            settings, metrics = record["config"], record["metrics"]
            final = [float(metrics[name]) for name in ("test_accuracy", "test_loss")]
            if not history:
                raise ValueError("no epochs")
            return cls(folder, record, history, losses, settings, int(settings["seed"]), *final)

    def metrics(self) -> list[dict[str, Any]]:
        """One dict per epoch, for `pandas.DataFrame(run.metrics())`."""
        return [asdict(epoch) for epoch in self.history]

    def evaluate(self) -> Evaluation:
        """Evaluate the final weights, in the precision of the run where this machine has it."""
        precision = str(self.record.get("mixed_precision", "no"))
        config = EvaluateConfig(
            weights=self.path / run_record.WEIGHTS_FILE,
            mixed_precision="auto" if precision == "fp16" else precision,
            output_dir=Path(tempfile.gettempdir()),  # nothing is written
        )
        result, _, dataset, predictions = run_evaluation(config, Observer())
        return Evaluation(result, dataset, predictions)

    def as_json(self) -> dict[str, Any]:
        """The main figures as JSON values."""
        return {name: getattr(self, name) for name in ("seed", "test_accuracy", "test_loss")} | {
            "epochs": len(self.history),
            "train_seconds": sum(epoch.train_seconds for epoch in self.history),
            "weights_sha256": self.record["weights_sha256"],
            "output_dir": str(self.path),
        }


@dataclass(frozen=True)
class Group:
    """Runs of one configuration with different seeds or folds; a single run is a group of one."""

    path: Path
    runs: tuple[Run, ...]

    @classmethod
    def load(cls, path: str | Path) -> "Group":
        """Read the run in the folder `path`, or all runs in its sub-folders named seed-N or fold-N.

        Raises UserError if no run is there, one is unfinished, or they differ in more than seed and fold.
        """
        folder = Path(path)
        members = sorted([*folder.glob("seed-*"), *folder.glob("fold-*")], key=lambda each: (len(each.name), each.name))
        if (folder / run_record.METRICS_FILE).exists() or not members:
            members = [folder]
        runs = tuple(Run.load(member) for member in members)
        if names := differences([run.settings for run in runs]):
            problem = f"{folder}: its runs differ in {', '.join(names)}"
            raise UserError(problem, "keep the runs of one configuration in a folder of their own")
        return cls(folder, runs)

    @cached_property
    def accuracies(self) -> npt.NDArray[np.float64]:
        """Test accuracies of the runs, float64 (runs,)."""
        return np.array([run.test_accuracy for run in self.runs])

    def as_json(self) -> dict[str, Any]:
        """Figures of all runs, and mean, standard error and 95% interval of the test accuracy (None for one run)."""
        from mnist_accel.reports.statistics import mean_interval  # imports scipy, which takes a second

        mean, error, interval = mean_interval(self.accuracies)
        runs = [run.as_json() for run in self.runs]
        return {"runs": runs, "mean": mean, "standard_error": error, "ci95": interval}


def differences(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The settings that runs do not share, with the value of each; without seeds, folders, settings of checkpoints."""
    found = differing(*({**values, "folds": (values.get("fold") or "/").split("/")[1]} for values in settings))
    return {name: values for name, values in found.items() if name not in IRRELEVANT}
