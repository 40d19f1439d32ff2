import numpy as np
import pytest

from mnist_accel.training.metrics import Predictions, confusion_matrix, per_class, wilson_interval


def predictions(labels: list[int], predicted: list[int]) -> Predictions:
    n = len(labels)
    return Predictions(np.array(labels), np.array(predicted), np.full(n, 0.5), np.full(n, 0.25))


def test_wilson_interval_agrees_with_published_values() -> None:
    # R: binom::binom.confint(81, 263, method = "wilson"), Newcombe (1998), table I
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_figures_by_class_are_those_counted_by_hand() -> None:
    guess = predictions([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2])
    confusion = confusion_matrix(guess, 4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    rows = per_class(confusion, ("a", "b", "c", "d"))
    assert rows[0] == {"class": "a", "precision": 1.0, "recall": 2 / 3, "f1": 0.8, "samples": 3}
    assert rows[1] == {"class": "b", "precision": 0.5, "recall": 0.5, "f1": 0.5, "samples": 2}
    assert rows[3] == {"class": "d", "precision": 0.0, "recall": 0.0, "f1": 0.0, "samples": 0}


def test_accuracy_and_loss_are_means_over_samples() -> None:
    guess = predictions([0, 1, 2, 3], [0, 1, 2, 9])
    assert (guess.correct, guess.accuracy, guess.loss) == (3, 0.75, 0.25)
