"""Pictures as PNG bytes, made from records and predictions alone."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mnist_accel.data.datasets import Digits
from mnist_accel.training.events import EpochRecord
from mnist_accel.training.metrics import Predictions

TRAIN_COLOUR, TEST_COLOUR, VALIDATION_COLOUR = "tab:blue", "tab:red", "tab:orange"
RIGHT_COLOUR, WRONG_COLOUR = "black", "tab:red"
ROWS, COLUMNS = 2, 5


def training_history(history: Sequence[EpochRecord], dataset: str, final_accuracy: float) -> bytes:
    """Loss on the left, accuracy on the right; a point an epoch. Held-out samples take the test set's place."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    epochs = [record.epoch for record in history]
    held_out = history[0].validation_loss is not None
    part, colour = ("validation", VALIDATION_COLOUR) if held_out else ("test", TEST_COLOUR)
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        train = [getattr(record, f"train_{name}") for record in history]
        after = [getattr(record, f"{part}_{name}") for record in history]
        axes.plot(epochs, train, "o-", color=TRAIN_COLOUR, label="train (running average, under dropout)")
        axes.plot(epochs, after, "o-", color=colour, label=f"{part} (after the epoch)")
        axes.set(xlabel="epoch", ylabel=name)
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    loss.set_ylabel("loss (cross entropy, nats)")
    loss.set_ylim(bottom=0)
    accuracy.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g}%"))
    figure.suptitle(f"{dataset}: final test accuracy {final_accuracy:.2%}, {history[-1].epoch} epochs")
    return _png(figure)


def sample_predictions(
    digits: Digits, predictions: Predictions, class_names: Sequence[str], dataset: str, seed: int
) -> bytes:
    """Ten randomly chosen test images with truth, prediction and probability; wrong ones stand out."""
    chosen = np.random.default_rng(seed).choice(len(digits), size=min(ROWS * COLUMNS, len(digits)), replace=False)
    title = f"{dataset}: {len(chosen)} random test images; of all {len(digits):,}, {predictions.accuracy:.2%} are right"
    return _image_grid(chosen, digits, predictions, class_names, title)


def worst_mistakes(digits: Digits, predictions: Predictions, class_names: Sequence[str], dataset: str) -> bytes:
    """The wrong predictions that were most certain, the most certain first; at most 20."""
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    worst = wrong[np.argsort(-predictions.probability[wrong], kind="stable")][: 2 * ROWS * COLUMNS]
    title = f"{dataset}: {len(wrong):,} of {len(digits):,} test images are wrong"
    if len(wrong) > len(worst):
        title += f"; the {len(worst)} most certain"
    return _image_grid(worst, digits, predictions, class_names, title)


def confusion_matrix(confusion: npt.NDArray[np.int64], class_names: Sequence[str], dataset: str) -> bytes:
    """Counts by true (row) and predicted (column) class. Mistakes are coloured, right ones are not."""
    classes = len(class_names)
    figure = Figure(figsize=(7.2, 6.6), layout="constrained")
    axes = figure.subplots()
    mistakes = confusion * (1 - np.eye(classes, dtype=np.int64))
    axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=max(1, int(mistakes.max())))
    for row, column in np.ndindex(classes, classes):
        count = int(confusion[row, column])
        if count:
            dark = mistakes[row, column] > 0.6 * mistakes.max()
            axes.text(
                column,
                row,
                str(count),
                ha="center",
                va="center",
                color="white" if dark else "black",
                weight="bold" if row == column else "normal",
            )
    axes.set_xticks(range(classes), class_names)
    if any(len(name) > 3 for name in class_names):
        axes.tick_params(axis="x", rotation=45)
    axes.set_yticks(range(classes), class_names)
    axes.set(xlabel="predicted", ylabel="true")
    right, total = int(np.trace(confusion)), int(confusion.sum())
    axes.set_title(f"{dataset}: {right:,} of {total:,} right ({right / total:.2%})")
    return _png(figure)


def _image_grid(
    indices: npt.NDArray[np.int64],
    digits: Digits,
    predictions: Predictions,
    class_names: Sequence[str],
    title: str,
) -> bytes:
    rows = max(1, -(-len(indices) // COLUMNS))
    figure = Figure(figsize=(10, 0.6 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, index in zip(grid, indices, strict=False):
        _show(axes, digits, predictions, int(index), class_names)
    figure.suptitle(title)
    return _png(figure)


def _show(axes: Axes, digits: Digits, predictions: Predictions, index: int, class_names: Sequence[str]) -> None:
    true, predicted = int(predictions.labels[index]), int(predictions.predicted[index])
    colour = RIGHT_COLOUR if true == predicted else WRONG_COLOUR
    axes.imshow(digits.images[index], cmap="gray", vmin=0, vmax=255)
    axes.set_title(
        f"true {class_names[true]}\npredicted {class_names[predicted]} ({predictions.probability[index]:.1%})",
        color=colour,
        weight="normal" if true == predicted else "bold",
        fontsize=11,
    )
    if true != predicted:
        axes.axis("on")
        axes.set_xticks([])
        axes.set_yticks([])
        for side in axes.spines.values():
            side.set(color=WRONG_COLOUR, linewidth=3)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
