from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_accel import EvaluateConfig, TrainConfig, evaluate, train
from mnist_accel.data import datasets
from mnist_accel.data.digits import DataSet
from mnist_accel.errors import DataError

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 5
IMAGES = RNG.integers(0, 256, (60, 28, 28), np.uint8)
ROW = "7" + 784 * ",0"


def write_csv(path: Path, images: Any = IMAGES, labels: Any = LABELS) -> str:
    header = ",".join(["label", *(f"pixel{number}" for number in range(784))])
    np.savetxt(path, np.column_stack([labels, images.reshape(len(images), -1)]), "%d", ",", header=header, comments="")
    return f"csv:{path}"


def write_npz(path: Path, **changes: Any) -> str:
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:10], "y_test": LABELS[:10]} | changes
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return f"npz:{path}"


def load(name: str) -> DataSet:
    return datasets.load(name, Path(), print)


def test_a_table_is_divided_into_training_and_test_rows_of_every_class(tmp_path: Path) -> None:
    data = load(write_csv(tmp_path / "train.csv"))
    assert data.class_names == ("0", "1", "2", "3", "4")
    assert np.bincount(data.test.labels).tolist() == [2] * 5
    assert len(data.train) == 50
    found = {
        image.tobytes(): label
        for part in (data.train, data.test)
        for image, label in zip(part.images, part.labels, strict=True)
    }
    assert found == {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}


def test_arrays_are_read_as_written(tmp_path: Path) -> None:
    data = load(write_npz(tmp_path / "mnist.npz"))
    np.testing.assert_array_equal(data.train.images, IMAGES)
    np.testing.assert_array_equal(data.test.labels, LABELS[:10])


def test_both_forms_are_trained_on_and_evaluated(tmp_path: Path) -> None:
    for name in (write_csv(tmp_path / "t.csv"), write_npz(tmp_path / "t.npz")):
        train(TrainConfig(dataset=name, epochs=1, output_dir=tmp_path))
        seen = evaluate(EvaluateConfig(weights=tmp_path / "mnist_cnn_model.pth", output_dir=tmp_path))
        assert seen.dataset == name


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"x_train": IMAGES.astype(float)}, "images are float64"),
        ({"x_test": IMAGES[:10, :20]}, r"images are uint8 \(10, 20, 28\)"),
        ({"y_train": LABELS[:-1]}, "labels are"),
        ({"y_test": LABELS[:10] - 1}, "labels from -1"),
        ({"y_test": None}, "y_test"),
        ({"y_train": np.array([{}] * 60)}, "can be read"),
    ],
)
def test_arrays_in_another_form_are_refused(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        load(write_npz(tmp_path / "bad.npz", **changes))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("label\n", "0 rows"),
        ("label,a\n1,2\n", "1 rows of 2 columns"),
        ("l\n1,x\n", r"not a table .*line 2: 2 columns"),
        (f"l\n{ROW}\n\n{ROW[:-1]}256\n", r"not a table .*line 4: '256'"),
        (f"l\n{ROW}\n{ROW},0\n", r"not a table .*line 3: 786 columns"),
    ],
)
def test_a_file_that_is_no_table_of_digits_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=problem):
        load(f"csv:{tmp_path / 'bad.csv'}")


def test_a_class_of_the_test_part_alone_cannot_be_trained(tmp_path: Path) -> None:
    name = write_npz(tmp_path / "mnist.npz", y_test=LABELS[:10] + 2)
    with pytest.raises(DataError, match="5, 6: a class in the test part but not in the training part"):
        train(TrainConfig(dataset=name, epochs=1, output_dir=tmp_path))


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4rubbish")
    for name in (f"csv:{tmp_path / 'none.csv'}", f"npz:{tmp_path / 'cut.npz'}", "csv:" + "x" * 300):
        with pytest.raises(DataError, match=name[:60]):
            load(name)
