"""Data sets of the user's own: a folder of IDX files, or of pictures in one sub-folder a class."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.data import idx
from mnist_accel.data.datasets import DataSet, Digits, occurrence, select
from mnist_accel.errors import DataError
from mnist_accel.pictures import ink
from mnist_accel.pictures import mnist_form as convention
from mnist_accel.pictures import picture_file as picture
from mnist_accel.pictures import strokes as segment
from mnist_accel.pictures.picture_file import SUFFIXES, PictureError

SIDE = 28
"""Pixels of an image's height and width, as the networks take them."""
MOST_CLASSES = 256
"""A label is a byte."""
TEST_SHARE = 6
"""One of so many pictures of a class is tested on, as of MNIST's 70,000."""
PARTS = {"train": ("train",), "test": ("t10k", "test")}
"""Words in file names that tell the parts of a data set."""


def load_idx(name: str, folder: Path) -> DataSet:
    """A data set of four IDX files, packed (.gz) or not, named as MNIST's own or EMNIST's; large ones are mapped.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others.
    """
    checksums: dict[str, str] = {}
    parts = {}
    for part, words in PARTS.items():
        images_path = _find(name, folder, words, "images", "idx3")
        labels_path = _find(name, folder, words, "labels", "idx1")
        try:
            images, checksums[images_path.name] = idx.read(images_path, 3)
            labels, checksums[labels_path.name] = idx.read(labels_path, 1)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{name}: a damaged or unreadable file in {folder} ({error})", "put it there anew"
            ) from error
        if images.shape[1:] != (SIDE, SIDE):
            raise DataError(
                f"{name}: {images_path.name} holds images of {images.shape[1]} × {images.shape[2]} pixels",
                f"give images of {SIDE} × {SIDE}",
            )
        if len(images) != len(labels) or not len(images):
            raise DataError(f"{name}: {len(images)} {part} images but {len(labels)} labels", "give one label an image")
        parts[part] = Digits(images, labels.astype(np.int64))
    classes = 1 + max(int(digits.labels.max()) for digits in parts.values())
    return DataSet(
        name=name,
        train=parts["train"],
        test=parts["test"],
        class_names=tuple(map(str, range(max(2, classes)))),
        source=str(folder),
        checksums=checksums,
    )


def load_folder(name: str, folder: Path) -> DataSet:
    """A data set of pictures, one sub-folder a class, as torchvision's ImageFolder has it; in train/ and test/ if any.

    Each picture is brought to MNIST's convention, as `predict` does it, and is taken for one character. Without train/
    and test/, one in TEST_SHARE of each class is tested on, always the same ones.

    Raises:
        DataError: there are not at least two classes, or a picture cannot be read.
    """
    parts = [folder / "train", folder / "test"] if (folder / "train").is_dir() else [folder]
    if not all(part.is_dir() for part in parts):
        raise DataError(f"{name}: {', '.join(str(part) for part in parts)}: no such folder", "name one with pictures")
    classes = sorted(path.name for path in parts[0].iterdir() if path.is_dir() and not path.name.startswith("."))
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise DataError(
            f"{name}: {parts[0]} holds {len(classes)} sub-folders, which are the classes", f"make 2 to {MOST_CLASSES}"
        )
    loaded, digest = [], hashlib.sha256()
    for part in parts:
        images, labels, problems = [], [], []
        for label, class_name in enumerate(classes):
            for path in sorted((part / class_name).glob("*")):
                if path.suffix.lower() not in SUFFIXES:
                    continue
                try:
                    image = _character(path)
                except PictureError as error:
                    problems.append(f"{path.relative_to(folder)}: {error.message}")
                    continue
                images.append(image)
                labels.append(label)
                digest.update(f"{path.relative_to(folder)}".encode() + image.tobytes())
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise DataError(f"{name}: {'; '.join(problems[:3])}{more}", "replace or delete these pictures")
        if missing := sorted(set(range(len(classes))) - set(labels)):
            raise DataError(f"{name}: no picture in {part / classes[missing[0]]}", "put some there")
        loaded.append(Digits(np.stack(images), np.array(labels, dtype=np.int64)))
    if len(loaded) == 1:
        order = np.random.default_rng(0).permutation(len(loaded[0]))
        is_test = np.empty(len(order), dtype=np.bool_)
        is_test[order] = occurrence(loaded[0].labels[order]) % TEST_SHARE == TEST_SHARE - 1
        if not is_test.any():
            raise DataError(f"{name}: too few pictures to hold some out", f"put at least {TEST_SHARE} into a class")
        loaded = [select(loaded[0], np.flatnonzero(~is_test)), select(loaded[0], np.flatnonzero(is_test))]
    return DataSet(
        name=name,
        train=loaded[0],
        test=loaded[1],
        class_names=tuple(classes),
        source=str(folder),
        checksums={"pictures": f"sha256:{digest.hexdigest()}"},
    )


def _character(path: Path) -> npt.NDArray[np.uint8]:
    """What a network sees of a picture of one character; uint8 (28, 28)."""
    pixels = picture.read(str(path)).pixels
    if convention.is_conventional(pixels):
        return pixels
    strength = ink.strength(pixels)
    if strength is None:
        raise PictureError("blank: no ink stands out from the paper")
    marks = segment.find_marks(strength)
    return convention.to_mnist(marks[0].ink if len(marks) == 1 else strength)


def _find(name: str, folder: Path, words: tuple[str, ...], kind: str, form: str) -> Path:
    """The one file of this kind, such as train-images-idx3-ubyte.gz; unpacked before packed."""
    if not folder.is_dir():
        raise DataError(f"{name}: {folder} is not a folder", "name a folder with IDX files")
    found = [
        path
        for path in sorted(folder.iterdir())
        if kind in path.name and form in path.name and any(word in path.name for word in words)
    ]
    unpacked = [path for path in found if path.suffix != ".gz"]
    if len(unpacked or found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{name}: one file named …{words[0]}…{kind}…{form}… is needed in {folder}; found: {names}",
            "name the files as MNIST's are, one of each",
        )
    return (unpacked or found)[0]
