import json
import os
from pathlib import Path

import numpy as np
import pytest

from mnist_accel.data import datasets, picture_folder
from mnist_accel.data.digits import fingerprint
from mnist_accel.errors import DataError
from tests.conftest import Run


def draw(folder: Path, pictures: int) -> None:
    """Write pictures of circles and bars, dark on light, in random sizes and places."""
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


def test_a_folder_of_pictures_is_split_by_class_and_always_in_the_same_way(tmp_path: Path) -> None:
    draw(tmp_path, 12)
    (tmp_path / "bar" / "notes.txt").write_text("not a picture")
    found = picture_folder.load("folder:x", tmp_path)
    assert found.class_names == ("bar", "circle")
    assert np.bincount(found.train.labels).tolist() == [10, 10]
    assert np.bincount(found.test.labels).tolist() == [2, 2]
    assert found.train.images[0].max() > 200 > found.train.images[0].mean()  # white on black
    again = picture_folder.load("folder:x", tmp_path)
    assert fingerprint(again) == fingerprint(found)
    np.testing.assert_array_equal(again.test.images, found.test.images)


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    draw(tmp_path / "train", 4)
    draw(tmp_path / "test", 3)
    found = picture_folder.load("folder:x", tmp_path)
    assert (len(found.train), len(found.test)) == (8, 6)


def test_an_unusable_folder_of_pictures_is_refused_with_the_reason(tmp_path: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message):
            datasets.load(f"folder:{tmp_path / 'mine'}", tmp_path, print)

    refused("is not a folder")
    draw(tmp_path / "mine", 2)
    refused("too few samples")
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


def test_a_class_that_is_in_the_test_folder_alone_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "train", 4)
    draw(tmp_path / "test", 3)
    (tmp_path / "test" / "square").mkdir()
    with pytest.raises(DataError, match="square: a class in"):
        picture_folder.load("folder:x", tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["fifo", "endless device"])
def test_a_special_file_among_the_pictures_is_named(tmp_path: Path, kind: str) -> None:
    draw(tmp_path, 7)
    path = tmp_path / "bar" / "special.png"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"bar/special\.png"):
        picture_folder.load("folder:x", tmp_path)


def test_file_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    draw(tmp_path, 7)
    os.rename(tmp_path / "bar" / "0.png", os.fsencode(tmp_path / "bar") + b"/\xff.png")  # noqa: PTH104
    assert len(picture_folder.load("folder:x", tmp_path).train) == 12
