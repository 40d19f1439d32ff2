import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_accel import TrainConfig, find_learning_rate, train
from mnist_accel.errors import UserError
from mnist_accel.training.lr_find import RATES, suggestion
from tests.conftest import SMALL_MNIST, Run

SMALL = ("--dataset", SMALL_MNIST, "--threads", 1, "--cpu", "--mixed-precision", "no", "--batch-size", 50)


@pytest.mark.parametrize(("best", "sharpness"), [(3e-4, 1.0), (1e-3, 0.2), (0.04, 3.0)])
def test_the_suggestion_is_the_minimum_of_a_smooth_curve(best: float, sharpness: float) -> None:
    losses = 0.3 * np.exp(sharpness * np.log10(RATES / best) ** 2)
    assert suggestion(losses) == pytest.approx(best, rel=0.05)


@pytest.mark.parametrize("worse", [3.0, 1e6, math.inf])
def test_the_suggestion_keeps_away_from_rates_that_fail(worse: float) -> None:
    losses = np.array([2.3, 1.9, 1.0, 0.5, 0.3, worse, worse, math.inf, math.inf])
    assert RATES[3] < suggestion(losses) < RATES[4]
    assert suggestion(losses[::-1]) > RATES[4]


@pytest.mark.parametrize("end", [0, 8])
def test_the_suggestion_stays_within_the_rates_that_were_tried(end: int) -> None:
    losses = 1 + abs(np.arange(9) - end) / 9
    assert RATES[0] <= suggestion(losses) <= RATES[8]


def test_the_suggestion_trains_better_than_a_tenth_and_ten_times_of_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"dataset": SMALL_MNIST, "model": "small-cnn", "epochs": 1, "batch_size": 50}
    config = TrainConfig(**settings, threads=1, cpu=True, output_dir=tmp_path)
    lr = find_learning_rate(config).lr
    accuracies = [train(config.with_changes(lr=rate)).test_accuracy for rate in (lr / 10, lr, lr * 10)]
    assert accuracies[1] > max(accuracies[0], accuracies[2])


def test_it_writes_one_picture_and_leaves_the_weights_as_they_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mnist_cnn_model.pth").write_bytes(b"earlier weights")
    done = run("train", *SMALL, "--lr-find", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert list(values) == ["lr", "rates", "losses"]
    assert len(values["rates"]) == len(values["losses"]) == 9
    assert f"suggested learning rate: --lr {values['lr']:g}" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr_find.png", "mnist_cnn_model.pth"]
    assert (tmp_path / "mnist_cnn_model.pth").read_bytes() == b"earlier weights"
    again = run("train", *SMALL, "--lr-find", "--json")
    assert json.loads(again.stdout) == values
    two = run("train", *SMALL, "--lr-find", "--json", "--processes", 2)
    assert json.loads(two.stdout)["losses"][0] == pytest.approx(values["losses"][0], rel=0.2)  # other dropout
    assert two.stderr.count("suggested learning rate") == 1


def test_an_epoch_of_a_few_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"an epoch has 4 whole batches of 1000; lower --batch-size; 36 are needed"):
        find_learning_rate(TrainConfig(dataset=SMALL_MNIST, batch_size=1000, output_dir=tmp_path))


def test_a_loss_that_is_never_a_number_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="infinite or not a number with all rates"):
        suggestion(np.full(9, math.inf))


def test_groups_and_the_search_are_not_combined(run: Run) -> None:
    done = run("train", "--lr-find", "--folds", 3)
    assert done.returncode == 2
    assert "--seeds, --folds and --lr-find cannot be combined" in done.stderr
