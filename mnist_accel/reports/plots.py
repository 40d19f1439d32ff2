"""Pictures of runs and evaluations, as PNG files in memory; readable on white pages and in dark notebooks."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mnist_accel.config.base import count
from mnist_accel.data.digits import DataSet
from mnist_accel.errors import printable
from mnist_accel.reports.console import running_average

if TYPE_CHECKING:
    from mnist_accel.training.evaluate import EvaluateResult
    from mnist_accel.training.lr_find import LearningRates
    from mnist_accel.training.metrics import Predictions
    from mnist_accel.training.train import TrainResult

COLUMNS, SAMPLES = 5, 10
GREY = "#777777"
GREYS = ("text.color", "xtick.color", "ytick.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor")
STYLE: dict[Any, Any] = dict.fromkeys(GREYS, GREY) | {"legend.frameon": False}
on_any_background = rc_context(STYLE)  # decorates the functions that draw


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, transparent=True)
    return buffer.getvalue()


@on_any_background
def training_history(result: "TrainResult") -> bytes:
    """Loss on the left, with that of each step behind, accuracy on the right; one point per epoch."""
    history, step_losses = result.history, result.step_losses
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs_done = np.arange(1, len(step_losses) + 1) * len(history) / len(step_losses)
    loss.plot(epochs_done, step_losses, color="tab:blue", alpha=0.5, linewidth=0.6, label="train (each step)")
    _draw_epochs(loss, result, "loss")
    _draw_epochs(accuracy, result, "accuracy")
    loss.set(ylabel="loss (cross entropy, nats)")
    losses = np.concatenate([np.asarray(line.get_ydata()) for line in loss.lines[-2:]])
    if losses.max() > 10 * losses.min() > 0:
        loss.set_yscale("log")
        loss.set_ylim(bottom=losses.min() / 2)
    else:
        loss.set_ylim(0, 1.5 * losses.max() or 1)  # the losses of the first steps would flatten the epochs' curves
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    figure.suptitle(f"{result.dataset}: final test accuracy {result.test_accuracy:.2%}, {count(len(history), 'epoch')}")
    return png(figure)


def _draw_epochs(axes: Axes, result: "TrainResult", name: str) -> None:
    """The epochs' figures of `name`, "loss" or "accuracy": training, and validation, or else test."""
    epochs = [record.epoch for record in result.history]
    part, colour = ("validation", "tab:orange") if result.validation_samples else ("test", "tab:red")
    train = [getattr(record, f"train_{name}") for record in result.history]
    after = [getattr(record, f"{part}_{name}") for record in result.history]
    axes.plot(epochs, train, "o-", color="tab:blue", label=f"train ({running_average(result.settings)})")
    axes.plot(epochs, after, "s--", color=colour, label=f"{part} (after the epoch)")
    axes.set(xlabel="epoch", ylabel=name, xlim=(0, len(epochs) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()


@on_any_background
def learning_rates(found: "LearningRates", name: str) -> bytes:
    """The loss after the training with each learning rate, and the suggested rate."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    losses = np.array(found.losses, dtype=np.float64)  # NaN for None
    axes.semilogx(found.rates, losses, "o-", color="tab:blue")
    axes.axvline(found.lr, color="tab:red", label=f"suggested: {found.lr:g}")
    axes.set(xlabel="learning rate", ylabel="training loss of the last steps (nats)", title=name)
    lowest = np.nanmin(losses)
    height = max(losses[0] - lowest, 0.1 * lowest) or 1
    axes.set_ylim(max(0, lowest - 0.2 * height), losses[0] + 0.4 * height)  # high rates would flatten the curve
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


@on_any_background
def sample_predictions(data: DataSet, predictions: "Predictions", seed: int) -> bytes:
    """Ten random test images and the ten least certain ones, with true class, predicted class and probability."""
    samples = min(SAMPLES, len(predictions))
    figure = Figure(figsize=(10, 0.6 + 5.4 * -(-samples // COLUMNS)), layout="constrained")
    figure.suptitle(f"{data.name}: accuracy on all {len(predictions):,} test images: {predictions.accuracy:.2%}")
    above, below = figure.subfigures(2, 1, squeeze=False)[:, 0]
    above.suptitle(f"{samples} random test images", weight="bold")
    below.suptitle(f"The {samples} least certain predictions", weight="bold")
    chosen = np.random.default_rng(seed).choice(len(predictions), size=samples, replace=False)
    _draw_images(above, chosen, data, predictions)
    _draw_images(below, np.argsort(predictions.probability, kind="stable")[:samples], data, predictions)
    return png(figure)


@on_any_background
def worst_mistakes(data: DataSet, predictions: "Predictions") -> bytes:
    """The most confident mistakes, the most confident first; at most 20."""
    wrong = predictions.mistakes
    worst = wrong[: 2 * SAMPLES]
    figure = Figure(figsize=(10, 0.6 + 2.4 * max(1, -(-len(worst) // COLUMNS))), layout="constrained")
    more = f"; the {len(worst)} most confident mistakes" if len(wrong) > len(worst) else ""
    figure.suptitle(f"{data.name}: {len(wrong):,} of {len(predictions):,} test images misclassified{more}")
    _draw_images(figure, worst, data, predictions)
    return png(figure)


@on_any_background
def confusion_matrix(result: "EvaluateResult") -> bytes:
    """Counts by true class (row) and predicted class (column). Only mistakes are coloured, as the colour bar says."""
    confusion, names = np.array(result.confusion_matrix), [row["class"] for row in result.per_class]
    figure = Figure(figsize=(8, 6.6), layout="constrained")
    axes = figure.subplots()
    mistakes = confusion * (1 - np.eye(len(names), dtype=np.int64))
    most = max(1, int(mistakes.max()))
    coloured = axes.imshow(np.ma.masked_equal(mistakes, 0), cmap="Reds", vmin=0, vmax=most)
    ticks, label = MaxNLocator(5, integer=True), "mistakes (correct predictions are not coloured)"
    figure.colorbar(coloured, label=label, shrink=0.6, ticks=ticks)
    for row, column in np.argwhere(confusion):
        colour, weight = GREY, "bold"
        if row != column:
            colour, weight = "white" if mistakes[row, column] > 0.6 * most else "black", "normal"
        axes.text(column, row, confusion[row, column], ha="center", va="center", color=colour, weight=weight)
    axes.set_xticks(range(len(names)), names, rotation=45 if max(map(len, names)) > 3 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"{result.dataset}: {result.correct:,} of {result.samples:,} correct ({result.accuracy:.2%})")
    return png(figure)


def _draw_images(figure: FigureBase, indices: npt.NDArray[np.int64], data: DataSet, predictions: "Predictions") -> None:
    """Images with true class, predicted class and probability; wrong predictions stand out."""
    rows = max(1, -(-len(indices) // COLUMNS))
    grid = figure.subplots(rows, COLUMNS, squeeze=False, subplot_kw={"frameon": False, "xticks": [], "yticks": []})
    for axes, index in zip(grid.flat, indices, strict=False):
        true, predicted = predictions.labels[index], predictions.predicted[index]
        answer = f"{data.class_names[predicted]} ({predictions.probability[index]:.1%})"
        shown = f"true {data.class_names[true]}\npredicted {answer}"
        if data.test.files is not None:
            shown += f"\n{printable(Path(data.test.files[index]).name, 24)}"
        text = axes.set_title(shown, fontsize=11, parse_math=False)
        axes.imshow(data.test.images[index], cmap="gray", vmin=0, vmax=255)
        if true != predicted:
            text.set(color="tab:red", weight="bold")
            axes.set_frame_on(True)
            axes.spines[:].set(color="tab:red", linewidth=3)
