import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_accel import EvaluateConfig, TrainConfig, evaluate, train, train_group
from mnist_accel.data import datasets, digits
from mnist_accel.data.digits import DataSet
from mnist_accel.errors import DataError, UserError
from mnist_accel.reports.runs import Group
from tests.conftest import SMALL_MNIST, Run
from tests.data.test_array_files import IMAGES, LABELS, write_csv, write_npz

SMALL = ("train", "--epochs", 1, "--train-samples", 300, "--threads", 1, "--mixed-precision", "no")


def load(name: str) -> DataSet:
    return datasets.load(name, Path(), print)


def images(part: digits.Digits) -> list[bytes]:
    return [image.tobytes() for image in part.images]


def test_each_training_image_is_tested_once_and_never_in_the_fold_that_trains_on_it() -> None:
    data = load(SMALL_MNIST)
    tested: list[bytes] = []
    for number in range(1, 6):
        fold = digits.fold(data, f"{number}/5")
        assert not set(images(fold.train)) & set(images(fold.test))
        assert len(fold.train) + len(fold.test) == 4000
        counts = np.bincount(fold.test.labels) / np.bincount(data.train.labels)
        assert abs(counts - 0.2).max() < 0.01
        tested += images(fold.test)
    assert sorted(tested) == sorted(images(data.train))


def test_equal_images_are_in_the_same_part(tmp_path: Path) -> None:
    doubled = {"x_train": np.concatenate([IMAGES, IMAGES]), "y_train": np.concatenate([LABELS, LABELS])}
    data = load(write_npz(tmp_path / "doubled.npz", **doubled))
    for number in range(1, 4):
        fold = digits.fold(data, f"{number}/3")
        assert not set(images(fold.train)) & set(images(fold.test))


def test_without_a_test_part_the_folds_divide_all_samples(tmp_path: Path) -> None:
    data = load(write_csv(tmp_path / "train.csv"))
    tested = [image for number in (1, 2, 3) for image in images(digits.fold(data, f"{number}/3").test)]
    assert sorted(tested) == sorted(image.tobytes() for image in IMAGES)


def test_more_folds_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"part 20/20 .*give fewer folds"):
        digits.fold(load(write_csv(tmp_path / "train.csv")), "20/20")


@pytest.mark.parametrize("part", ["0/5", "1/0", "1", "x/y", "1/5/2"])
def test_a_part_in_another_form_is_refused(part: str) -> None:
    with pytest.raises(UserError, match="not a part; give K/N"):
        TrainConfig(fold=part)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    train_group(TrainConfig(dataset=SMALL_MNIST, epochs=1, threads=1, train_samples=300, output_dir=folder), folds=2)
    return folder


def test_folds_are_a_group_of_runs_with_mean_and_interval(run: Run) -> None:
    done = run(*SMALL, "--dataset", SMALL_MNIST, "--folds", 2, "--json")
    assert done.returncode == 0, done.stderr
    values: dict[str, Any] = json.loads(done.stdout)
    accuracies = [each["test_accuracy"] for each in values["runs"]]
    assert [Path(each["output_dir"]).name for each in values["runs"]] == ["fold-1", "fold-2"]
    assert values["mean"] == pytest.approx(sum(accuracies) / 2)
    assert values["ci95"][0] < values["mean"] < values["ci95"][1]
    assert "the test images are part 2/2 of the training set" in done.stderr
    again = run(*SMALL, "--dataset", SMALL_MNIST, "--folds", 2, "--json", "--resume", "auto")
    assert json.loads(again.stdout) == values
    other = run(*SMALL, "--dataset", SMALL_MNIST, "--folds", 3, "--resume", "auto")
    assert other.returncode == 2
    assert "with folds 2 instead of 3" in other.stderr


def test_the_weights_of_a_fold_are_evaluated_on_its_own_test_images(group: Path) -> None:
    found = Group.load(group)
    for member in found.runs:
        config = EvaluateConfig(weights=member.path / "mnist_cnn_model.pth", output_dir=member.path)
        assert evaluate(config).accuracy == pytest.approx(member.test_accuracy)
    assert sum(member.evaluate().result.samples for member in found.runs) == 4000


def test_a_fold_is_trained_without_a_look_at_its_test_images(tmp_path: Path) -> None:
    """Other test images leave the weights as they are."""
    hashes = []
    for images_of_first in (IMAGES, 255 - IMAGES):
        name = write_npz(tmp_path / "a.npz", x_train=IMAGES)
        part = digits.fold(load(name), "1/3")
        is_test = np.isin([image.tobytes() for image in IMAGES], images(part.test))
        changed = np.where(is_test[:, None, None], images_of_first, IMAGES)
        write_npz(tmp_path / "a.npz", x_train=changed)
        config = TrainConfig(dataset=name, fold="1/3", epochs=1, threads=1, output_dir=tmp_path)
        hashes.append(train(config).weights_sha256)
    assert hashes[0] == hashes[1]


def test_seeds_and_folds_together_are_refused(run: Run) -> None:
    done = run("train", "--seeds", 2, "--folds", 2)
    assert done.returncode == 2
    assert "--seeds, --folds and --lr-find cannot be combined" in done.stderr
