from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest

from mnist_accel.data.datasets import DIGITS, Digits
from mnist_accel.reports import plots
from mnist_accel.training.events import EpochRecord
from mnist_accel.training.metrics import Predictions

N = 40


def pixels(png: bytes) -> npt.NDArray[np.float64]:
    return np.asarray(matplotlib.image.imread(io.BytesIO(png), format="png"), dtype=np.float64)[:, :, :3]


def count(picture: npt.NDArray[np.float64], colour: tuple[float, float, float]) -> int:
    return int((np.abs(picture - colour).max(axis=2) < 0.02).sum())


BLUE, RED = (0x1F / 255, 0x77 / 255, 0xB4 / 255), (0xD6 / 255, 0x27 / 255, 0x28 / 255)


def record(epoch: int) -> EpochRecord:
    return EpochRecord(epoch, 1 / epoch, 0.9, 0.5 / epoch, 0.95, 0.001, 1000.0, 1.0)


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


def test_a_perfect_confusion_matrix_has_no_colour() -> None:
    picture = pixels(plots.confusion_matrix(np.diag(np.full(10, 7)), DIGITS, "mnist"))
    assert np.ptp(picture, axis=2).max() < 0.06  # the palette's lightest red is off white
