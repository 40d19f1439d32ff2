import dataclasses
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.reports import data_summary
from tests.conftest import SMALL_MNIST, Run

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)


def data_set(train: list[int], train_labels: list[int], test: list[int], test_labels: list[int]) -> DataSet:
    """The images of these numbers, of three classes."""
    first, second = Digits(IMAGES[train], np.array(train_labels)), Digits(IMAGES[test], np.array(test_labels))
    return DataSet("mine", first, second, ("a", "b", "c"), "here", {})


def test_classes_pixels_and_duplicates_are_counted() -> None:
    data = data_set([0, 1, 2, 2, 3, 0], [0, 1, 0, 0, 1, 1], [4, 3, 5, 5, 0], [0, 1, 1, 1, 0])
    found = data_summary.summarise(data)
    assert found.classes == [
        {"class": "a", "train": 3, "test": 2},
        {"class": "b", "train": 3, "test": 3},
        {"class": "c", "train": 0, "test": 0},
    ]
    assert (found.train_duplicates, found.test_duplicates, found.in_both, found.contradictions) == (2, 1, [1, 4], 1)
    pixels = data.train.images / 255
    np.testing.assert_allclose((found.mean, found.std), (pixels.mean(), pixels.std()))


def test_the_picture_grows_by_a_row_for_each_class() -> None:
    without = data_set([0, 1, 2], [0, 1, 2], [4, 5], [0, 1])
    many = dataclasses.replace(without, class_names=tuple(map(str, range(200))))
    sizes = [
        Image.open(io.BytesIO(data_summary.draw(data, data_summary.summarise(data)))).size for data in (without, many)
    ]
    assert sizes[0][1] < sizes[1][1]


def test_the_command_writes_the_picture_and_gives_json(run: Run, tmp_path: Path) -> None:
    done = run("data", SMALL_MNIST, "--output", "small.png", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["train_samples"], values["test_samples"], len(values["classes"])) == (4000, 300, 10)
    assert "0 of 300 test images are also training images" in done.stderr
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


def test_damaged_pictures_are_left_out_as_in_a_training(run: Run, tmp_path: Path) -> None:
    for number in range(14):
        place = tmp_path / "letters" / "AB"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.pad(IMAGES[number], 20)).save(place / f"{number}.png")
    (tmp_path / "letters" / "A" / "0.png").write_bytes(b"rubbish")
    refused, shown = run("data", "folder:letters"), run("data", "folder:letters", "--skip-damaged", "--json")
    assert (refused.returncode, shown.returncode) == (2, 0), shown.stderr
    assert "leave them out by --skip-damaged" in refused.stderr
    values = json.loads(shown.stdout)
    assert values["train_samples"] + values["test_samples"] == 13


def test_an_unknown_data_set_and_a_missing_folder_are_one_line(run: Run) -> None:
    for arguments, text in ((("mnsit",), "did you mean mnist"), (("mnist", "--output", "no/x.png"), "cannot write")):
        done = run("data", *arguments)
        assert done.returncode != 0
        (line,) = done.stderr.splitlines()
        assert text in line
