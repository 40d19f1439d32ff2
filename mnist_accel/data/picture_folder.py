"""`--dataset folder:DIR`: a data set of pictures, one sub-folder for each class."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mnist_accel.data import picture_reader
from mnist_accel.data.digits import DataSet, Digits, hold_out, select
from mnist_accel.errors import DataError
from mnist_accel.pictures.picture_file import SUFFIXES

LARGEST_DAMAGED_SHARE = 0.01
"""Pictures that cannot be read are left out up to this share of all pictures."""


def load(
    name: str,
    folder: Path,
    notice: Callable[[str], None],
    progress: Callable[[int, int], None],
    *,
    skip_damaged: bool = False,
) -> DataSet:
    """Read pictures from DIR/CLASS, or from DIR/train/CLASS and DIR/test/CLASS, as torchvision's ImageFolder does.

    Each picture shows one character and is converted to the form of MNIST's images, as `predict` does it. Without
    train/ and test/, one in `TEST_SHARE` pictures of each class becomes a test picture, always the same ones.

    Raises:
        DataError: there are fewer than two classes, a class has no picture, or too many pictures cannot be read.
        OSError: a folder cannot be read.
    """
    parts = [Path("train"), Path("test")] if (folder / "train").is_dir() else [Path()]
    classes = _same_classes(name, folder, parts)
    class_folders = [part / class_name for part in parts for class_name in classes]
    listed = [_pictures(folder, class_folder) for class_folder in class_folders]
    files = [file for inside in listed for file in inside]
    images, errors = picture_reader.read(folder, files, progress)
    problems = [f"{files[index]}: {text}" for index, text in errors.items()]
    _report(name, problems, len(files), notice, are_all_skipped=skip_damaged)
    places = np.repeat(np.arange(len(listed)), [len(inside) for inside in listed])  # the class folder of each picture
    sound = np.delete(np.arange(len(files)), list(errors))
    images, places = images[sound], places[sound]
    if missing := set(range(len(listed))) - set(places.tolist()):
        empty = folder / class_folders[min(missing)]
        raise DataError(f"{name}: no picture in {empty}", "give each class pictures, or delete its folder")
    digest = hashlib.sha256()
    for index, image in zip(sound, images, strict=True):
        digest.update(os.fsencode(files[index]) + image.tobytes())
    is_test, labels = places >= len(classes), places % len(classes)
    everything = Digits(images, labels, np.array(files, dtype=np.object_)[sound])
    if len(parts) == 2:
        train, test = (select(everything, np.flatnonzero(here)) for here in (~is_test, is_test))
    else:
        train, test = hold_out(name, everything)
    checksums = {"pictures": f"sha256:{digest.hexdigest()}"}
    return DataSet(name, train, test, tuple(classes), str(folder), checksums, has_test_part=len(parts) == 2)


def _same_classes(name: str, folder: Path, parts: list[Path]) -> list[str]:
    """The classes of a folder whose parts all have the same ones."""
    classes = _classes(folder / parts[0])
    if not 2 <= len(classes) <= 256:
        counted = f"{folder / parts[0]} has {len(classes)} sub-folders, one for each class"
        raise DataError(f"{name}: {counted}", "make 2 to 256")
    if unknown := sorted(set(_classes(folder / parts[-1])) - set(classes)):
        raise DataError(
            f"{name}: {', '.join(unknown[:3])}: a class in {folder / parts[-1]} but not in {folder / parts[0]}",
            "give each class training pictures, or delete its test pictures",
        )
    return classes


def _classes(part: Path) -> list[str]:
    return sorted(path.name for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path, class_folder: Path) -> list[str]:
    """The pictures in a class folder by their paths relative to `folder`; none if there is no such class folder."""
    inside = folder / class_folder
    files = sorted(inside.iterdir()) if inside.is_dir() else []
    return [str(class_folder / file.name) for file in files if file.suffix.lower() in SUFFIXES]


def _report(
    name: str, problems: list[str], pictures: int, notice: Callable[[str], None], *, are_all_skipped: bool
) -> None:
    """Tell the user about damaged pictures; raise DataError if they are too many."""
    if not problems:
        return
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    text = f"{name}: {len(problems)} of {pictures:,} pictures cannot be read: {'; '.join(problems[:3])}{more}"
    if len(problems) > LARGEST_DAMAGED_SHARE * pictures and not are_all_skipped:
        raise DataError(text, "replace or delete them, or leave them out by --skip-damaged")
    notice(f"{text}. They are left out")
