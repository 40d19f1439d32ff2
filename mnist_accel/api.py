"""The Python API: `train`, `find_learning_rate`, `evaluate` and `predict`. The commands call these functions."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mnist_accel.config.settings import EvaluateConfig, TrainConfig
from mnist_accel.errors import printable
from mnist_accel.files import atomic, run_record
from mnist_accel.files.run_record import METRICS_FILE, STEP_LOSSES_FILE, WEIGHTS_FILE, record_path
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.hardware.cores import launched_rank
from mnist_accel.reports.console import notebook_observer
from mnist_accel.reports.timing import Timing, machine_use
from mnist_accel.training import lr_find
from mnist_accel.training.evaluate import EvaluateResult, run_evaluation
from mnist_accel.training.events import Observer, Observers
from mnist_accel.training.lr_find import LearningRates
from mnist_accel.training.train import TrainResult, run_training

if TYPE_CHECKING:
    from mnist_accel.pictures.predict import PictureResult

TRAIN_PICTURES = ("training_history.png", "predictions.png")
LR_FIND_FILE = "lr_find.png"
EVALUATE_FILES = ("confusion_matrix.png", "mistakes.png")
TRAIN_FILES = (WEIGHTS_FILE, record_path(Path(WEIGHTS_FILE)).name, METRICS_FILE, STEP_LOSSES_FILE, *TRAIN_PICTURES)


def train(
    config: TrainConfig | None = None, observer: Observer | None = None, *, model: type[nn.Module] | None = None
) -> TrainResult:
    """Train as `config` says, and write weights, record, figures and pictures into `config.output_dir`.

    Every process of a distributed run calls this; the main process alone writes. The files of an earlier run in the
    same folder are replaced only when this run has succeeded. Signals stop the run between two steps, after it has
    saved. Raises UserError if the machine, the data or the output folder does not allow it.

    Args:
        config: the settings; by default those of the default recipe.
        observer: hears the events; by default nothing is printed, but a notebook shows a table and the pictures.
        model: a network of the caller's own in place of `config.model`, defined at the top level of a module.
    """
    began = time.perf_counter()
    timing = Timing(is_written=launched_rank() == 0)
    observer = Observers(timing, observer or notebook_observer())
    config = config or TrainConfig()
    if model is not None:
        config = config.with_changes(model=f"{model.__module__}:{model.__qualname__}")
    result, hardware, dataset, predictions = run_training(config, observer)

    pictures = [config.output_dir / name for name in TRAIN_PICTURES]
    observer.part_started("pictures")
    _write_pictures(
        hardware,
        observer,
        pictures,
        lambda plots: (plots.training_history(result), plots.sample_predictions(dataset, predictions, config.seed)),
    )
    spent: dict[str, Any] = {}

    def complete_record() -> None:
        use = machine_use(result) if hardware.is_main else {}  # first, so that its seconds count
        spent.update(timing.finish(result.steps) | use)
        if hardware.is_main:
            weights = config.output_dir / WEIGHTS_FILE
            record = (run_record.read_record(weights) or {}) | {"time_spent": spent}
            atomic.publish({record_path(weights): run_record.record_bytes(record)})

    hardware.together(complete_record)
    result = dataclasses.replace(result, wall_seconds=time.perf_counter() - began, time_spent=spent)
    observer.run_finished(result, pictures)
    return result


def find_learning_rate(config: TrainConfig | None = None, observer: Observer | None = None) -> LearningRates:
    """Suggest a learning rate after at most one epoch with rising rates, and draw lr_find.png into `config.output_dir`.

    Every process of a distributed run calls this. Nothing else is written, and nothing is printed; `observer` hears
    notices. The `lr` of `config` does not matter. Raises UserError if the data or the machine do not allow it.
    """
    config, observer = config or TrainConfig(), observer or Observer()
    found, hardware = lr_find.find_learning_rate(config, observer)
    name, picture = f"{config.model} on {config.dataset}", config.output_dir / LR_FIND_FILE
    _write_pictures(hardware, observer, [picture], lambda plots: (plots.learning_rates(found, name),))
    return found


def evaluate(
    config: EvaluateConfig | str | PathLike[str] | None = None, observer: Observer | None = None
) -> EvaluateResult:
    """Evaluate saved weights, and draw the confusion matrix and the most confident mistakes into `config.output_dir`.

    Every process of a distributed run calls this; the main process alone writes. Nothing is printed; `observer` hears
    notices. `config` can be the path of the weights. Raises UserError if weights, data or machine do not allow it.
    """
    observer, config = observer or Observer(), config or EvaluateConfig()
    if not isinstance(config, EvaluateConfig):
        config = EvaluateConfig(weights=Path(config))
    result, hardware, dataset, predictions = run_evaluation(config, observer)
    _write_pictures(
        hardware,
        observer,
        [config.output_dir / name for name in EVALUATE_FILES],
        lambda plots: (plots.confusion_matrix(result), plots.worst_mistakes(dataset, predictions)),
    )
    return result


def predict(
    pictures: str | Path | Sequence[str | Path],
    weights: str | Path = WEIGHTS_FILE,
    top_k: int = 3,
    *,
    model: str | None = None,
) -> "list[PictureResult]":
    """Read the digits in picture files: a result for each, with an error where the picture cannot be read.

    Args:
        pictures: a file, a folder, a pattern such as "*.png", or several of them.
        weights: a .pth file or an exported model. Raises UserError if they cannot be used.
        top_k: number of labels for each digit.
        model: the network of the user's own that the weights belong to, "FILE.py:CLASS".
    """
    from mnist_accel.models import classifier  # here, because training need not wait for these imports
    from mnist_accel.pictures import picture_file
    from mnist_accel.pictures.predict import read_pictures

    names = [pictures] if isinstance(pictures, str | Path) else pictures
    network = classifier.load(Path(weights), model=model)
    return list(read_pictures(picture_file.find([str(name) for name in names]), network, top_k))


def _write_pictures(
    hardware: Hardware, observer: Observer, paths: list[Path], draw: Callable[[Any], tuple[bytes, ...]]
) -> None:
    """Draw by `reports.plots`, and write, on the main process. The others wait: launchers stop all with the first."""

    def write() -> None:
        try:
            from mnist_accel.reports import plots  # here, because importing Matplotlib takes a third of a second

            atomic.publish(dict(zip(paths, draw(plots), strict=True)))
        except Exception as error:  # Matplotlib can fail in any way; the results that matter are written already
            observer.notice(f"the pictures could not be drawn ({type(error).__name__}: {printable(error)})")
            for path in paths:  # those of an earlier run would be taken for this one's
                path.unlink(missing_ok=True)

    hardware.together(lambda: write() if hardware.is_main else None)
