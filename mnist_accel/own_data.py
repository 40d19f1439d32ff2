"""Data sets of the user's own: a folder of IDX files."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from mnist_accel import idx
from mnist_accel.data import DataSet, Digits
from mnist_accel.errors import DataError

SIDE = 28
"""Pixels of an image's height and width, as the networks take them."""
MOST_CLASSES = 256
"""A label is a byte."""
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
