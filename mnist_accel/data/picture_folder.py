"""`--dataset folder:DIR`: a data set of pictures, one sub-folder for each class."""

import hashlib
import os
from pathlib import Path

import numpy as np

from mnist_accel.data.digits import DataSet, Digits, hold_out
from mnist_accel.errors import DataError
from mnist_accel.pictures.picture_file import SUFFIXES, PictureError
from mnist_accel.pictures.predict import read_character


def load(name: str, folder: Path) -> DataSet:
    """Read pictures from DIR/CLASS, or from DIR/train/CLASS and DIR/test/CLASS, as torchvision's ImageFolder does.

    Each picture shows one character and is converted to the form of MNIST's images, as `predict` does it. Without
    train/ and test/, one in `TEST_SHARE` pictures of each class becomes a test picture, always the same ones.

    Raises:
        DataError: there are fewer than two classes, a class has no picture, or a picture cannot be read.
        OSError: a folder cannot be read.
    """
    parts = [folder / "train", folder / "test"] if (folder / "train").is_dir() else [folder]
    classes = _classes(parts[0])
    if not 2 <= len(classes) <= 256:
        raise DataError(f"{name}: {parts[0]} has {len(classes)} sub-folders, one for each class", "make 2 to 256")
    if unknown := sorted(set(_classes(parts[-1])) - set(classes)):
        raise DataError(
            f"{name}: {', '.join(unknown[:3])}: a class in {parts[-1]} but not in {parts[0]}",
            "give each class training pictures, or delete its test pictures",
        )
    digest = hashlib.sha256()
    digits = [_read_part(name, folder, part, classes, digest) for part in parts]
    train, test = digits if len(digits) == 2 else hold_out(name, digits[0])
    return DataSet(name, train, test, tuple(classes), str(folder), {"pictures": f"sha256:{digest.hexdigest()}"})


def _classes(part: Path) -> list[str]:
    return sorted(path.name for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))


def _read_part(name: str, folder: Path, part: Path, classes: list[str], digest: "hashlib._Hash") -> Digits:
    """The pictures of all classes in `part`; their relative paths and pixels go into `digest`."""
    images, labels, problems = [], [], []
    for label, class_name in enumerate(classes):
        class_folder = part / class_name
        for path in sorted(class_folder.iterdir()) if class_folder.is_dir() else []:
            if path.suffix.lower() not in SUFFIXES:
                continue
            try:
                image = read_character(path)
            except PictureError as error:
                problems.append(f"{path.relative_to(folder)}: {error.message}")
                continue
            images.append(image)
            labels.append(label)
            digest.update(os.fsencode(path.relative_to(folder)) + image.tobytes())
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(f"{name}: {'; '.join(problems[:3])}{more}", "replace or delete these pictures")
    if missing := set(range(len(classes))) - set(labels):
        raise DataError(f"{name}: no picture in {part / classes[min(missing)]}", "give each class pictures")
    return Digits(np.stack(images), np.array(labels, dtype=np.int64))
