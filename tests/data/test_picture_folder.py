import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest

from mnist_accel.data import datasets, picture_folder
from mnist_accel.data.digits import DataSet, fingerprint
from mnist_accel.errors import DataError
from mnist_accel.pictures import processes
from mnist_accel.pictures.predict import read_character
from tests.conftest import Run


def load(folder: Path, told: list[str] | None = None) -> DataSet:
    return datasets.load(f"folder:{folder}", folder, (told if told is not None else []).append)


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
    found = load(tmp_path)
    assert found.class_names == ("bar", "circle")
    assert np.bincount(found.train.labels).tolist() == [10, 10]
    assert np.bincount(found.test.labels).tolist() == [2, 2]
    assert found.train.images[0].max() > 200 > found.train.images[0].mean()  # white on black
    again = load(tmp_path)
    assert fingerprint(again) == fingerprint(found)
    np.testing.assert_array_equal(again.test.images, found.test.images)


def test_train_and_test_folders_are_kept_apart(tmp_path: Path) -> None:
    draw(tmp_path / "train", 4)
    draw(tmp_path / "test", 3)
    found = load(tmp_path)
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
        load(tmp_path)


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
        load(tmp_path)


def test_each_picture_keeps_the_name_of_its_file(tmp_path: Path) -> None:
    draw(tmp_path, 12)
    found = load(tmp_path)
    assert found.test.files is not None
    assert [Path(name).parent.name for name in found.test.files] == [found.class_names[n] for n in found.test.labels]
    for image, name in zip(found.test.images, found.test.files, strict=True):
        assert np.array_equal(image, read_character(tmp_path / name))


def test_file_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    draw(tmp_path, 7)
    os.rename(tmp_path / "bar" / "0.png", os.fsencode(tmp_path / "bar") + b"/\xff.png")  # noqa: PTH104
    assert len(load(tmp_path).train) == 12


def test_a_few_damaged_pictures_are_named_and_left_out(tmp_path: Path) -> None:
    draw(tmp_path, 60)
    (tmp_path / "circle" / "7.png").write_bytes(b"rubbish")
    told: list[str] = []
    found = load(tmp_path, told)
    assert (len(found.train) + len(found.test), len(told)) == (119, 1)
    assert "1 of 120 pictures cannot be read: circle/7.png: not a picture" in told[0]
    (tmp_path / "bar" / "9.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"2 of 120 .*bar/9\.png.*replace or delete them, or .*--skip-damaged"):
        load(tmp_path)
    found = datasets.load(f"folder:{tmp_path}", tmp_path, told.append, skip_damaged=True)
    assert (len(found.train) + len(found.test), len(told)) == (118, 2)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The pictures that were read from their files."""
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return read_character(path)

    monkeypatch.setattr(picture_folder, "read_character", counted)
    return read


def test_pictures_are_read_once_until_a_file_changes(tmp_path: Path, readings: list[Path]) -> None:
    draw(tmp_path, 7)
    first, again = load(tmp_path), load(tmp_path)
    assert len(readings) == 14
    assert fingerprint(again) == fingerprint(first)
    np.testing.assert_array_equal(again.train.images, first.train.images)
    path = tmp_path / "bar" / "0.png"
    status, content = path.stat(), path.read_bytes()
    path.write_bytes((tmp_path / "bar" / "1.png").read_bytes()[: len(content)].ljust(len(content), b"\0"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time of modification
    assert fingerprint(load(tmp_path)) != fingerprint(first)
    for change in (path.unlink, lambda: path.write_bytes(content), lambda: path.rename(tmp_path / "bar" / "x.png")):
        readings.clear()
        change()
        load(tmp_path)
        assert len(readings) >= 13


@pytest.mark.parametrize("content", [b"", b"PK\3\4rubbish"])
def test_a_damaged_cache_is_written_again(tmp_path: Path, readings: list[Path], content: bytes) -> None:
    draw(tmp_path, 7)
    first = load(tmp_path)
    for path in platformdirs.user_cache_path("mnist-accel").iterdir():
        path.write_bytes(content)
    assert fingerprint(load(tmp_path)) == fingerprint(first)
    assert len(readings) == 28
    load(tmp_path)
    assert len(readings) == 28


def test_without_a_cache_folder_pictures_are_read_again(
    tmp_path: Path, readings: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path, 7)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert len(load(tmp_path).train) + len(load(tmp_path).train) == 24
    assert len(readings) == 28


def test_several_processes_read_the_same_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, 60)
    (tmp_path / "circle" / "7.png").write_bytes(b"rubbish")
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.png"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    images, errors = picture_folder.read(tmp_path, names, lambda *_: None)
    monkeypatch.setattr(processes, "TRIAL", 0.0)
    monkeypatch.setattr(processes, "LEAST", 1e-6)
    monkeypatch.setattr(processes, "available_cores", lambda: 3)
    heard: list[tuple[int, int]] = []
    by_three, same_errors = picture_folder.read(tmp_path, names, lambda *numbers: heard.append(numbers))
    np.testing.assert_array_equal(by_three, images)
    assert same_errors == errors
    assert heard == [(number, 120) for number in range(1, 121)]
    assert "circle/7.png" in [names[index] for index in errors]


def test_a_link_that_leads_nowhere_counts_as_a_damaged_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("gone.png")
    _, errors = picture_folder.read(tmp_path, ["a.png"], lambda *_: None)
    assert "no such file" in errors[0]
