import gzip
import json
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mnist_accel.data import array_files
from mnist_accel.data import datasets as data
from mnist_accel.data.named_sets import NAMED_SETS
from mnist_accel.errors import DataError
from tests.conftest import Run

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMED_SETS["mnist"].files
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
    found = array_files.load_idx("idx:x", write(tmp_path, prefix, zipped=zipped))
    np.testing.assert_array_equal(found.train.images, ARRAYS[TRAIN_IMAGES])
    np.testing.assert_array_equal(found.test.labels, ARRAYS[TEST_LABELS])
    assert found.class_names == ("0", "1", "2")


DAMAGES = {
    "a file is missing": (TEST_LABELS, None, "is needed in"),
    "cut short": (TRAIN_IMAGES, packed(ARRAYS[TRAIN_IMAGES])[:-1], "its header says"),
    "not an IDX file": (TRAIN_LABELS, b"hello, I am a text", "not an IDX file"),
    "empty": (TRAIN_LABELS, b"", "not an IDX file"),
    "more labels than images": (TEST_LABELS, packed(np.zeros(31, dtype=np.uint8)), "one whole number for each image"),
    "another size": (TEST_IMAGES, packed(np.zeros((30, 32, 32), dtype=np.uint8)), "32, 32"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_with_the_reason(tmp_path: Path, damage: str) -> None:
    write(tmp_path)
    name, content, message = DAMAGES[damage]
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        array_files.load_idx("idx:x", tmp_path)


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


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "endless device", "sparse file", "folder"])
@pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_LABELS, f"{TEST_LABELS}.gz"])
def test_a_special_file_in_place_of_an_expected_one_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    write(tmp_path, zipped=name.endswith(".gz"))
    path = tmp_path / name
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "endless device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(8 * 2**30)
    with pytest.raises(DataError, match="damaged or unreadable") as caught:
        array_files.load_idx("idx:x", tmp_path)
    assert name in caught.value.message


@pytest.mark.parametrize("form", ["idx", "folder"])
@pytest.mark.parametrize("make", ["long name", "loop", "file", "nul"])
def test_a_path_that_is_no_readable_folder_is_refused_with_one_clear_error(
    tmp_path: Path, form: str, make: str
) -> None:
    path = tmp_path / {"long name": "x" * 300, "nul": "a\0b"}.get(make, "mine")
    if make == "loop":
        path.symlink_to(path)
    if make == "file":
        path.write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        data.load(f"{form}:{path}", tmp_path, print)


@pytest.mark.parametrize("form", ["idx", "folder"])
def test_a_folder_that_may_not_be_listed_is_refused_with_one_clear_error(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", forbidden)  # permissions do not stop root, who may run the tests
    with pytest.raises(DataError, match=f"cannot read {tmp_path}: Permission denied"):
        data.load(f"{form}:{tmp_path}", tmp_path, print)


FILE = struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(range(24))


def test_an_array_is_read_as_written() -> None:
    assert np.array_equal(array_files.parse_idx(FILE, "f", 3), np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        FILE[:3],
        FILE[:15],
        FILE[:-1],
        FILE + b"x",
        b"\1" + FILE[1:],
        FILE[:2] + b"\x0d" + FILE[3:],
    ],
)
def test_a_damaged_file_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(ValueError, match="the-file"):
        array_files.parse_idx(content, "the-file", 3)


def test_a_header_of_terabytes_allocates_nothing() -> None:
    with pytest.raises(ValueError, match="its header says"):
        array_files.parse_idx(struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "f", 3)
