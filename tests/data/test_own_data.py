from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mnist_accel.data import datasets as data
from mnist_accel.data import idx, own_data
from mnist_accel.data.datasets import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS
from mnist_accel.errors import DataError
from tests.conftest import Run

GENERATOR = np.random.default_rng(0)
ARRAYS = {
    TRAIN_IMAGES: GENERATOR.integers(0, 256, (120, 28, 28), dtype=np.uint8),
    TRAIN_LABELS: np.arange(120, dtype=np.uint8) % 3,
    TEST_IMAGES: GENERATOR.integers(0, 256, (30, 28, 28), dtype=np.uint8),
    TEST_LABELS: np.arange(30, dtype=np.uint8) % 3,
}


def packed(array: npt.NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, prefix: str = "", *, zipped: bool = False) -> Path:
    for name, array in ARRAYS.items():
        content = packed(array)
        path = folder / (prefix + name + (".gz" if zipped else ""))
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("prefix", ["", "emnist-letters-"])
def test_idx_files_are_read_packed_or_not(tmp_path: Path, prefix: str, zipped: bool) -> None:
    found = own_data.load_idx("idx:x", write(tmp_path, prefix, zipped=zipped))
    np.testing.assert_array_equal(found.train.images, ARRAYS[TRAIN_IMAGES])
    np.testing.assert_array_equal(found.test.labels, ARRAYS[TEST_LABELS])
    assert found.class_names == ("0", "1", "2")


def test_a_large_file_is_mapped_and_stays_so_when_it_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = own_data.load_idx("idx:x", write(tmp_path))
    monkeypatch.setattr(idx, "LARGE", 1)
    mapped = own_data.load_idx("idx:x", tmp_path)
    assert isinstance(mapped.train.images, np.memmap)
    for one, other in zip(data.split_off(mapped.train, 40, 0, ""), data.split_off(plain.train, 40, 0, ""), strict=True):
        assert one.images.base is not None
        assert one.rows is not None
        np.testing.assert_array_equal(one.images[one.rows], other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_training_on_a_mapped_file_is_training_on_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mnist_accel import TrainConfig, train

    folder = write(tmp_path)
    config = {"dataset": f"idx:{folder}", "epochs": 1, "batch_size": 16, "validation_samples": 30, "threads": 1}
    plain = train(TrainConfig(output_dir=tmp_path / "plain", **config))  # type: ignore[arg-type]
    monkeypatch.setattr(idx, "LARGE", 1)
    mapped = train(TrainConfig(output_dir=tmp_path / "mapped", **config))  # type: ignore[arg-type]
    assert mapped.weights_sha256 == plain.weights_sha256


def test_the_checksum_of_a_large_file_tells_it_from_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "LARGE", 1)
    monkeypatch.setattr(idx, "BLOCK", 100)
    path = tmp_path / TRAIN_IMAGES
    path.write_bytes(packed(ARRAYS[TRAIN_IMAGES]))
    before = idx.read(path, 3)[1]
    assert idx.read(path, 3)[1] == before
    path.write_bytes(packed(255 - ARRAYS[TRAIN_IMAGES]))
    assert idx.read(path, 3)[1] != before


DAMAGES = {
    "a file is missing": (TEST_LABELS, None, "is needed in"),
    "cut short": (TRAIN_IMAGES, packed(ARRAYS[TRAIN_IMAGES])[:-1], "its header promises"),
    "no IDX file": (TRAIN_LABELS, b"hello, I am a text", "no IDX file"),
    "empty": (TRAIN_LABELS, b"", "cut short"),
    "more labels than images": (TEST_LABELS, packed(np.zeros(31, dtype=np.uint8)), "one label an image"),
    "another size": (TEST_IMAGES, packed(np.zeros((30, 32, 32), dtype=np.uint8)), "32 × 32"),
}


@pytest.mark.parametrize("large", [1, 2**40])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_folder_is_said(
    tmp_path: Path, damage: str, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx, "LARGE", large)
    write(tmp_path)
    name, content, message = DAMAGES[damage]
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        own_data.load_idx("idx:x", tmp_path)


def test_a_folder_is_trained_on_and_evaluated_with_its_own_classes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine")
    done = run("train", "--dataset", "idx:mine", "--epochs", 1, "--json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["train_samples"] == 120
    done = run("evaluate", "--json", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["confusion_matrix"]) == 3


def test_a_folder_that_is_not_there_is_refused(run: Run) -> None:
    for name, text in (("idx:nowhere", "nowhere is not a folder"), ("idx:", "unknown"), ("ixd:x", "idx:DIR")):
        done = run("train", "--dataset", name)
        assert done.returncode == 2
        assert text in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def draw(folder: Path, pictures: int) -> None:
    """Circles and bars, dark on light, in sizes and places of their own."""
    from PIL import Image, ImageDraw

    generator = np.random.default_rng(1)
    for name in ("bar", "circle"):
        (folder / name).mkdir(parents=True)
        for number in range(pictures):
            image = Image.new("RGB", (90, 70), "white")
            left, top, size = (int(generator.integers(8, high)) for high in (20, 15, 45))
            size += 15
            if name == "bar":
                ImageDraw.Draw(image).line((left + 20, top, left + 20, top + size), fill="navy", width=5)
            else:
                ImageDraw.Draw(image).ellipse((left, top, left + size, top + size), outline="navy", width=5)
            image.save(folder / name / f"{number}.png")


def test_a_folder_of_pictures_is_split_by_class_and_always_alike(tmp_path: Path) -> None:
    draw(tmp_path, 12)
    (tmp_path / "bar" / "notes.txt").write_text("not a picture")
    found = own_data.load_folder("folder:x", tmp_path)
    assert found.class_names == ("bar", "circle")
    assert np.bincount(found.train.labels).tolist() == [10, 10]
    assert np.bincount(found.test.labels).tolist() == [2, 2]
    assert found.train.images[0].max() > 200 > found.train.images[0].mean()  # white on black
    again = own_data.load_folder("folder:x", tmp_path)
    assert data.fingerprint(again) == data.fingerprint(found)
    np.testing.assert_array_equal(again.test.images, found.test.images)


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    draw(tmp_path / "train", 4)
    draw(tmp_path / "test", 3)
    found = own_data.load_folder("folder:x", tmp_path)
    assert (len(found.train), len(found.test)) == (8, 6)


def test_what_is_wrong_with_a_folder_of_pictures_is_said(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            own_data.load_folder("folder:x", tmp_path / "mine")

    refused("no such folder")
    draw(tmp_path / "mine", 2)
    refused("too few pictures")
    (tmp_path / "mine" / "circle" / "0.png").write_bytes(b"\x89PNG and no more")
    refused(r"circle/0\.png")
    for path in (tmp_path / "mine" / "circle").iterdir():
        path.unlink()
    refused("no picture in .*circle")
    (tmp_path / "mine" / "circle").rmdir()
    refused("1 sub-folders")


def test_pictures_are_trained_on_evaluated_and_predicted_by_their_class_names(run: Run, tmp_path: Path) -> None:
    draw(tmp_path / "shapes", 60)
    done = run("train", "--dataset", "folder:shapes", "--epochs", 8, "--batch-size", 20, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test_accuracy"] >= 0.9
    done = run("evaluate", "--threads", 1, "--json")
    assert [row["class"] for row in json.loads(done.stdout)["per_class"]] == ["bar", "circle"]
    done = run("predict", "shapes/circle/3.png", "shapes/bar/3.png", "--json")
    assert done.returncode == 0, done.stderr
    assert [one["digits"][0]["label"] for one in json.loads(done.stdout)] == ["circle", "bar"]
