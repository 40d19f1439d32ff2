import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.text import Text

from mnist_accel.data.digits import Digits
from mnist_accel.data.named_sets import DIGITS
from mnist_accel.reports import plots
from mnist_accel.training.metrics import Predictions
from tests.conftest import SMALL_MNIST, Run
from tests.reports.examples import record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N = 40


def pixels(png: bytes) -> npt.NDArray[np.float64]:
    return np.asarray(matplotlib.image.imread(io.BytesIO(png), format="png"), dtype=np.float64)[:, :, :3]


def count(picture: npt.NDArray[np.float64], colour: tuple[float, float, float]) -> int:
    return int((np.abs(picture - colour).max(axis=2) < 0.02).sum())


BLUE, RED = (0x1F / 255, 0x77 / 255, 0xB4 / 255), (0xD6 / 255, 0x27 / 255, 0x28 / 255)


@pytest.mark.parametrize("epochs", [1, 5])
def test_history_shows_train_in_blue_and_test_in_red_on_both_sides(epochs: int) -> None:
    picture = pixels(plots.training_history([record(epoch + 1) for epoch in range(epochs)], "mnist", 0.99))
    for half in np.array_split(picture, 2, axis=1):
        assert count(half, BLUE) > 50
        assert count(half, RED) > 50


def data(wrong: int) -> tuple[Digits, Predictions]:
    labels = np.arange(N) % 10
    predicted = labels.copy()
    predicted[:wrong] = (labels[:wrong] + 1) % 10
    digits = Digits(np.zeros((N, 28, 28), dtype=np.uint8), labels)
    return digits, Predictions(labels, predicted, np.linspace(0.5, 1, N), np.ones(N))


def test_wrong_predictions_stand_out_and_right_ones_do_not() -> None:
    assert count(pixels(plots.sample_predictions(*data(0), DIGITS, "mnist", 0)), RED) == 0
    assert count(pixels(plots.sample_predictions(*data(N), DIGITS, "mnist", 0)), RED) > 1000


@pytest.mark.parametrize("wrong", [0, 1, 20, N])
def test_mistakes_can_be_drawn_whatever_their_number(wrong: int) -> None:
    assert (count(pixels(plots.worst_mistakes(*data(wrong), DIGITS, "mnist")), RED) > 0) == (wrong > 0)


def test_mistakes_are_shown_with_the_names_of_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def set_title(_: object, text: str, **__: object) -> Text:
        shown.append(text)
        return Text()

    monkeypatch.setattr("matplotlib.axes.Axes.set_title", set_title)
    digits, predictions = data(1)
    named = replace(digits, files=np.array([f"class/{index}.png" for index in range(N)], dtype=np.object_))
    plots.worst_mistakes(named, predictions, DIGITS, "mine")
    assert shown == ["true 0\npredicted 1 (50.0%)\n0.png"]


def test_a_perfect_confusion_matrix_has_no_colour() -> None:
    picture = pixels(plots.confusion_matrix(np.diag(np.full(10, 7)), DIGITS, "mnist"))
    assert np.ptp(picture, axis=2).max() < 0.06  # the palette's lightest red is off white


PALE = (0xB9 / 255, 0xD3 / 255, 0xE8 / 255)


def test_step_losses_are_a_pale_line_in_the_left_half_only() -> None:
    history = [record(1), record(2)]
    without = count(pixels(plots.training_history(history, "mnist", 0.99)), PALE)  # edges of other lines, if any
    with_steps = pixels(plots.training_history(history, "mnist", 0.99, step_losses=[0.3, 0.6] * 50))
    left, right = np.array_split(with_steps, 2, axis=1)
    assert count(left, PALE) > without + 200
    assert count(right, PALE) <= without


def legend_and_title(monkeypatch: pytest.MonkeyPatch, epochs: int, train_figures: str) -> str:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "png", drawn.append)
    plots.training_history([record(epoch + 1) for epoch in range(epochs)], "mnist", 0.99, train_figures)
    legend = drawn[0].axes[0].get_legend()
    assert legend is not None
    return " ".join([drawn[0].get_suptitle(), *(text.get_text() for text in legend.get_texts())])


def test_the_legend_says_how_training_figures_were_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "dropout" not in legend_and_title(monkeypatch, 2, "running average")
    assert "train (running average, with dropout)" in legend_and_title(monkeypatch, 2, "running average, with dropout")


@pytest.mark.parametrize(("epochs", "text"), [(1, "1 epoch "), (2, "2 epochs ")])
def test_the_title_counts_epochs(monkeypatch: pytest.MonkeyPatch, epochs: int, text: str) -> None:
    assert text in legend_and_title(monkeypatch, epochs, "running average")


def test_pictures_are_drawn_where_mplbackend_names_no_backend(run: Run, tmp_path: Path) -> None:
    small = ("--dataset", SMALL_MNIST, "--train-samples", 200, "--epochs", 1, "--model", "small-cnn")
    done = run("train", *small, MPLBACKEND="of another environment")
    assert done.returncode == 0, done.stderr
    assert "NOTICE" not in done.stderr
    assert (tmp_path / "predictions.png").exists()
