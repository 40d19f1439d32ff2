import dataclasses
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.reports import plots
from mnist_accel.training.evaluate import EvaluateResult
from mnist_accel.training.lr_find import LearningRates
from mnist_accel.training.metrics import Predictions
from tests.conftest import SMALL_MNIST, Run
from tests.reports.examples import result

N = 40
DIGITS = tuple("0123456789")
BLUE, RED = (0x1F / 255, 0x77 / 255, 0xB4 / 255), (0xD6 / 255, 0x27 / 255, 0x28 / 255)
PALE = tuple(1 - 0.5 * (1 - part) for part in BLUE)


def pixels(png: bytes, page: float = 1.0) -> npt.NDArray[np.float64]:
    """The picture on a page of this grey, from 0 (black) to 1."""
    image = np.asarray(Image.open(io.BytesIO(png)), dtype=np.float64) / 255
    alpha = image[:, :, 3:]
    return np.asarray(image[:, :, :3] * alpha + page * (1 - alpha))


def count(picture: npt.NDArray[np.float64], colour: tuple[float, ...]) -> int:
    return int((np.abs(picture - colour).max(axis=2) < 0.02).sum())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures in place of their PNG files."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "png", figures.append)
    return figures


@pytest.mark.parametrize("epochs", [1, 5])
def test_history_shows_train_in_blue_and_test_in_red_on_both_sides(epochs: int) -> None:
    picture = pixels(plots.training_history(result(epochs)))
    for half in np.array_split(picture, 2, axis=1):
        assert count(half, BLUE) > 50
        assert count(half, RED) > 50


def test_train_and_test_have_different_markers(drawn: list[Figure]) -> None:
    plots.training_history(result(2))
    for axes in drawn[0].axes:
        assert [line.get_marker() for line in axes.lines[-2:]] == ["o", "s"]


@pytest.mark.parametrize(("last_loss", "scale"), [(0.2, "linear"), (0.01, "log"), (0.0, "linear")])
def test_the_loss_axis_is_logarithmic_where_the_losses_span_more_than_a_decade(
    drawn: list[Figure], last_loss: float, scale: str
) -> None:
    run = result(3, last_loss=last_loss or 0.2)
    last = dataclasses.replace(run.history[-1], test_loss=last_loss)
    plots.training_history(dataclasses.replace(run, history=(*run.history[:-1], last)))
    assert [axes.get_yscale() for axes in drawn[0].axes] == [scale, "linear"]


@pytest.mark.parametrize("page", [0.07, 1.0])
def test_text_and_lines_are_readable_on_dark_and_on_white_pages(page: float) -> None:
    png = plots.training_history(result(2))
    width, _ = Image.open(io.BytesIO(png)).size
    assert width == 11 * 160
    picture = pixels(png, page)
    assert (picture[0] == page).all()  # no background
    assert count(picture, (0x77 / 255,) * 3) > 500  # text


def data(wrong: int) -> tuple[DataSet, Predictions]:
    """Predictions, the first `wrong` of them wrong, from the least to the most certain."""
    labels = np.arange(N) % 10
    predicted = labels.copy()
    predicted[:wrong] = (labels[:wrong] + 1) % 10
    digits = Digits(np.zeros((N, 28, 28), dtype=np.uint8), labels)
    return DataSet("mnist", digits, digits, DIGITS, "", {}), Predictions(
        labels, predicted, np.linspace(0.5, 1, N), np.ones(N)
    )


def test_wrong_predictions_stand_out_and_right_ones_do_not() -> None:
    assert count(pixels(plots.sample_predictions(*data(0), 0)), RED) == 0
    assert count(pixels(plots.sample_predictions(*data(N), 0)), RED) > 1000


def test_the_least_certain_predictions_are_below_the_random_ones(drawn: list[Figure]) -> None:
    plots.sample_predictions(*data(0), 0)
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert len(titles) == 20
    assert [title.split("(")[1] for title in titles[10:]] == [f"{0.5 + index / 78:.1%})" for index in range(10)]


@pytest.mark.parametrize("wrong", [0, 1, 20, N])
def test_mistakes_can_be_drawn_whatever_their_number(wrong: int) -> None:
    assert (count(pixels(plots.worst_mistakes(*data(wrong))), RED) > 0) == (wrong > 0)


def test_mistakes_are_shown_with_the_names_of_their_files(drawn: list[Figure]) -> None:
    dataset, predictions = data(1)
    files = np.array([f"class/{index}.png" for index in range(N)], dtype=np.object_)
    named = dataclasses.replace(dataset, test=dataclasses.replace(dataset.test, files=files))
    plots.worst_mistakes(named, predictions)
    assert drawn[0].axes[0].get_title() == "true 0\npredicted 1 (50.0%)\n0.png"


def evaluation(matrix: npt.NDArray[np.int64]) -> EvaluateResult:
    rows = [{"class": name} for name in DIGITS]
    return EvaluateResult("mnist", 70, 70, 1.0, (0.9, 1.0), 0.0, rows, matrix.tolist())


def test_the_confusion_matrix_colours_mistakes_alone_and_says_so(drawn: list[Figure]) -> None:
    matrix = np.diag(np.full(10, 7))
    matrix[3, 5] = 2
    plots.confusion_matrix(evaluation(matrix))
    axes, bar = drawn[0].axes
    shown = axes.images[0].get_array()
    assert shown is not None
    assert np.argwhere(~np.ma.getmaskarray(shown)).tolist() == [[3, 5]]
    assert bar.get_ylabel() == "mistakes (correct predictions are not coloured)"
    assert sorted(text.get_text() for text in axes.texts) == ["2"] + ["7"] * 10


def test_a_perfect_confusion_matrix_has_no_colour() -> None:
    picture = pixels(plots.confusion_matrix(evaluation(np.diag(np.full(10, 7)))))
    matrix = picture[:, : int(0.8 * picture.shape[1])]
    assert np.ptp(matrix, axis=2).max() == 0


def test_step_losses_are_a_pale_line_in_the_left_half_only() -> None:
    picture = pixels(plots.training_history(result(2, step_losses=(0.3, 0.6) * 50)))
    left, right = np.array_split(picture, 2, axis=1)
    assert count(left, PALE) > count(right, PALE) + 200


def legend_and_title(figure: Figure) -> str:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return " ".join([figure.get_suptitle(), *(text.get_text() for text in legend.get_texts())])


def test_the_legend_says_how_training_figures_were_measured(drawn: list[Figure]) -> None:
    plots.training_history(result(2))
    plots.training_history(result(2, dropout=0.5))
    assert "dropout" not in legend_and_title(drawn[0])
    assert "train (running average, with dropout)" in legend_and_title(drawn[1])


def test_the_title_counts_epochs(drawn: list[Figure]) -> None:
    for epochs in (1, 2):
        plots.training_history(result(epochs))
    assert "99.00%, 1 epoch " in legend_and_title(drawn[0])
    assert "99.00%, 2 epochs " in legend_and_title(drawn[1])


@pytest.mark.parametrize("losses", [[2.32, 2.17, 9.0], [2.3, 0.1, None]])
def test_the_curve_of_learning_rates_fills_half_of_its_axis(drawn: list[Figure], losses: list[float | None]) -> None:
    plots.learning_rates(LearningRates(0.003, [0.0001, 0.003, 0.1], losses), "my_net.py:MyNet on mnist")
    bottom, top = drawn[0].axes[0].get_ylim()
    first, lowest, _ = losses
    assert first is not None
    assert lowest is not None
    assert 0 <= bottom <= lowest < first < top < 2 * (first - lowest) + bottom


def test_pictures_are_drawn_where_mplbackend_names_no_backend(run: Run, tmp_path: Path) -> None:
    small = ("--dataset", SMALL_MNIST, "--train-samples", 200, "--epochs", 1, "--model", "small-cnn")
    done = run("train", *small, MPLBACKEND="module://matplotlib_inline.backend_inline")
    assert done.returncode == 0, done.stderr
    assert "NOTICE" not in done.stderr
    assert (tmp_path / "predictions.png").exists()
