import json
from pathlib import Path

import numpy as np
import pytest

from mnist_accel import TrainConfig, find_learning_rate, train
from mnist_accel.errors import UserError
from mnist_accel.training.bad_numbers import NumbersError
from mnist_accel.training.lr_find import suggestion
from tests.conftest import SMALL_MNIST, Run, torchrun

SMALL = ("--dataset", SMALL_MNIST, "--threads", 1, "--cpu", "--mixed-precision", "no", "--batch-size", 100)
RATES = np.geomspace(1e-5, 1, 80)


def losses(fall: float, minimum: float) -> np.ndarray:
    """A loss that falls from 2.3 around the rate `fall`, and rises steeply above `minimum`."""
    falling = 0.3 + 2 / (1 + (RATES / fall) ** 2)
    noise = np.random.default_rng(0).normal(1, 0.03, len(RATES))
    return (falling + (RATES / minimum) ** 2) * noise


@pytest.mark.parametrize("scale", [0.1, 1, 10])
def test_the_suggestion_is_between_the_steepest_fall_and_the_minimum_and_scales_with_the_curve(scale: float) -> None:
    config = TrainConfig()
    found = suggestion(config, RATES, losses(1e-3 * scale, 0.03 * scale))
    assert 1e-3 * scale < found < 0.03 * scale
    assert suggestion(TrainConfig(recipe="speedrun"), RATES, losses(1e-3 * scale, 0.03 * scale)) > found


def test_the_suggestion_trains_better_than_a_tenth_and_ten_times_of_it(tmp_path: Path) -> None:
    config = TrainConfig(dataset=SMALL_MNIST, epochs=1, threads=1, cpu=True, output_dir=tmp_path)
    lr = find_learning_rate(config).lr
    accuracies = [train(config.with_changes(lr=rate)).test_accuracy for rate in (lr / 10, lr, lr * 10)]
    assert accuracies[1] > max(accuracies[0], accuracies[2])


def test_it_writes_one_picture_and_leaves_the_weights_as_they_are(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mnist_cnn_model.pth").write_bytes(b"earlier weights")
    done = run("train", *SMALL, "--lr-find", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert list(values) == ["lr", "rates", "losses"]
    assert len(values["rates"]) == len(values["losses"]) <= 40  # the steps of an epoch
    assert f"suggested learning rate: --lr {values['lr']:g}" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lr_find.png", "mnist_cnn_model.pth"]
    assert (tmp_path / "mnist_cnn_model.pth").read_bytes() == b"earlier weights"
    again = run("train", *SMALL, "--lr-find", "--json")
    assert json.loads(again.stdout) == values
    two = run("train", *SMALL, "--lr-find", "--json", launcher=torchrun(2))
    assert json.loads(two.stdout)["losses"][0] == pytest.approx(values["losses"][0], rel=0.2)  # other dropout


def test_an_epoch_of_a_few_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"an epoch has 4 whole batches of 1000; lower --batch-size; 20 are needed"):
        find_learning_rate(TrainConfig(dataset=SMALL_MNIST, batch_size=1000, output_dir=tmp_path))


def test_a_loss_that_is_never_a_number_is_one_clear_line() -> None:
    with pytest.raises(NumbersError, match="infinite or not a number at once"):
        suggestion(TrainConfig(), RATES[:3], np.ones(3))


def test_groups_and_the_search_are_not_combined(run: Run) -> None:
    done = run("train", "--lr-find", "--folds", 3)
    assert done.returncode == 2
    assert "--seeds, --folds and --lr-find cannot be combined" in done.stderr
