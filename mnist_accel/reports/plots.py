"""The pictures of runs and evaluations, as PNG files in memory."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mnist_accel.config.base import count
from mnist_accel.data.digits import Digits
from mnist_accel.errors import printable

if TYPE_CHECKING:
    from mnist_accel.training.events import EpochRecord
    from mnist_accel.training.lr_find import LearningRates
    from mnist_accel.training.metrics import Predictions

COLUMNS = 5


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # attaches itself to the figure
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def training_history(
    history: "Sequence[EpochRecord]",
    dataset: str,
    final_accuracy: float,
    train_figures: str = "running average",
    step_losses: Sequence[float] | None = None,
) -> bytes:
    """Loss on the left, accuracy on the right; one point per epoch.

    Args:
        history: at least one record. Validation figures are drawn instead of test figures where there are any.
        final_accuracy: test accuracy of the final weights.
        train_figures: how the training figures were measured, for the legend (`run_summary.running_average`).
        step_losses: mean training loss of each step of all epochs, drawn behind the points.
    """
    figure = new_figure(11, 4.2)
    loss, accuracy = figure.subplots(1, 2)
    if step_losses:
        epochs_done = np.arange(1, len(step_losses) + 1) * len(history) / len(step_losses)
        loss.plot(epochs_done, step_losses, color="#b9d3e8", linewidth=0.6, zorder=1, label="train (each step)")
    _draw_epochs(loss, history, "loss", train_figures)
    _draw_epochs(accuracy, history, "accuracy", train_figures)
    loss.set(ylabel="loss (cross entropy, nats)")
    largest = max(float(np.max(line.get_ydata())) for line in loss.lines[-2:])
    loss.set_ylim(0, 1.5 * largest or 1)  # the losses of the first steps would flatten the epochs' curves
    for axes in (loss, accuracy):
        axes.set_xlim(0 if step_losses else 0.5, len(history) + 0.5)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    figure.suptitle(f"{dataset}: final test accuracy {final_accuracy:.2%}, {count(history[-1].epoch, 'epoch')}")
    return png(figure)


def _draw_epochs(axes: Axes, history: "Sequence[EpochRecord]", name: str, train_figures: str) -> None:
    """The epochs' training and test figures of `name`, "loss" or "accuracy"."""
    epochs = [record.epoch for record in history]
    held_out = history[0].validation_loss is not None
    part, colour = ("validation", "tab:orange") if held_out else ("test", "tab:red")
    train = [getattr(record, f"train_{name}") for record in history]
    after = [getattr(record, f"{part}_{name}") for record in history]
    axes.plot(epochs, train, "o-", color="tab:blue", label=f"train ({train_figures})")
    axes.plot(epochs, after, "o-", color=colour, label=f"{part} (after the epoch)")
    axes.set(xlabel="epoch", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend()


def learning_rates(found: "LearningRates", name: str) -> bytes:
    """The loss after the training with each learning rate, and the suggested rate."""
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    losses = np.array(found.losses, dtype=np.float64)  # NaN for None
    axes.semilogx(found.rates, losses, "o-", color="tab:blue")
    axes.axvline(found.lr, color="tab:red", label=f"suggested: {found.lr:g}")
    axes.set(xlabel="learning rate", ylabel="training loss of the last steps (nats)", title=name)
    axes.set_ylim(0, 1.3 * losses[0])  # high rates would flatten the curve
    axes.grid(alpha=0.3)
    axes.legend()
    return png(figure)


def sample_predictions(
    digits: Digits, predictions: "Predictions", class_names: Sequence[str], dataset: str, seed: int
) -> bytes:
    """Ten random test images with true class, predicted class and probability; wrong predictions stand out."""
    chosen = np.random.default_rng(seed).choice(len(digits), size=min(10, len(digits)), replace=False)
    title = f"{dataset}: {len(chosen)} random test images; accuracy on all {len(digits):,}: {predictions.accuracy:.2%}"
    return _image_grid(chosen, digits, predictions, class_names, title)


def worst_mistakes(digits: Digits, predictions: "Predictions", class_names: Sequence[str], dataset: str) -> bytes:
    """The most confident mistakes, the most confident first; at most 20."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    worst = wrong[np.argsort(-predictions.probability[wrong], kind="stable")][:20]
    title = f"{dataset}: {len(wrong):,} of {len(digits):,} test images misclassified"
    if len(wrong) > len(worst):
        title += f"; the {len(worst)} most confident mistakes"
    return _image_grid(worst, digits, predictions, class_names, title)


def confusion_matrix(confusion: npt.NDArray[np.int64], class_names: Sequence[str], dataset: str) -> bytes:
    """Counts by true class (row) and predicted class (column). Only mistakes are coloured."""
    classes = len(class_names)
    figure = new_figure(7.2, 6.6)
    axes = figure.subplots()
    mistakes = confusion * (1 - np.eye(classes, dtype=np.int64))
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(1, int(mistakes.max())))
    for row, column in np.ndindex(classes, classes):
        number = int(confusion[row, column])
        if number:
            colour = "white" if mistakes[row, column] > 0.6 * mistakes.max() else "black"
            weight = "bold" if row == column else "normal"
            axes.text(column, row, str(number), ha="center", va="center", color=colour, weight=weight)
    axes.set_xticks(range(classes), class_names)
    if any(len(name) > 3 for name in class_names):
        axes.tick_params(axis="x", rotation=45)
    axes.set_yticks(range(classes), class_names)
    axes.set(xlabel="predicted", ylabel="true")
    correct, total = int(np.trace(confusion)), int(confusion.sum())
    axes.set_title(f"{dataset}: {correct:,} of {total:,} correct ({correct / total:.2%})")
    return png(figure)


def _image_grid(
    indices: npt.NDArray[np.int64], digits: Digits, predictions: "Predictions", class_names: Sequence[str], title: str
) -> bytes:
    rows = max(1, -(-len(indices) // COLUMNS))
    figure = new_figure(10, 0.6 + 2.4 * rows)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, indices, strict=False):
        true, predicted = predictions.labels[index], predictions.predicted[index]
        answer = f"{class_names[predicted]} ({predictions.probability[index]:.1%})"
        shown = f"true {class_names[true]}\npredicted {answer}"
        if digits.files is not None:
            shown += f"\n{printable(Path(digits.files[index]).name, 24)}"
        text = axes.set_title(shown, fontsize=11, parse_math=False)
        axes.imshow(digits.images[index], cmap="gray", vmin=0, vmax=255)
        if true != predicted:
            text.set(color="tab:red", weight="bold")
            axes.axis("on")
            axes.set(xticks=[], yticks=[])
            for side in axes.spines.values():
                side.set(color="tab:red", linewidth=3)
    figure.suptitle(title)
    return png(figure)
