"""`--dataset csv:FILE` and `npz:FILE`: a data set in one table or in NumPy's arrays."""

import hashlib
import io
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_accel.data.digits import DataSet, Digits, hold_out
from mnist_accel.errors import DataError, printable
from mnist_accel.files.untrusted import most_unpacked, read_limited

LARGEST_FILE = 2**31
"""Bytes."""
PIXELS = 28 * 28


def load_csv(name: str, path: Path) -> DataSet:
    """Read a table with a header line: in each row a label, then 784 pixels from 0 to 255 (the form of Kaggle's MNIST).

    Some rows of each class become test samples, always the same ones.

    Raises:
        DataError: the file is missing, or is not in this form.
    """
    content = _read(name, path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # reported below
            table = np.loadtxt(io.BytesIO(content), np.uint8, delimiter=",", skiprows=1, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{name}: not a table of numbers from 0 to 255 ({printable(error, 120)})") from error
    if table.shape[1] != 1 + PIXELS or not len(table):
        shape = f"{len(table)} rows of {table.shape[1]} columns"
        raise DataError(f"{name}: {shape}", f"give rows of a label and {PIXELS} pixels")
    digits = _digits(name, table[:, 1:].reshape(-1, 28, 28), table[:, 0])
    train, test = hold_out(name, digits)
    return replace(_data_set(name, path, train, test, content), has_test_part=False)


def load_npz(name: str, path: Path) -> DataSet:
    """Read the arrays x_train, y_train, x_test and y_test (the form of Keras' MNIST).

    Images are uint8 (N, 28, 28), labels whole numbers (N,).

    Raises:
        DataError: the file is missing, or is not in this form.
    """
    content = _read(name, path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > most_unpacked(len(content)):
                raise ValueError("it unpacks to more than 100 times its size")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            found = [(arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    except Exception as error:  # NumPy raises almost any type on a damaged file
        reason = printable(error, 120)
        raise DataError(f"{name}: no arrays x_train, y_train, x_test and y_test can be read ({reason})") from error
    train, test = (_digits(name, images, labels) for images, labels in found)
    return _data_set(name, path, train, test, content)


def _read(name: str, path: Path) -> bytes:
    try:
        return read_limited(path, LARGEST_FILE)
    except OSError as error:
        raise DataError(f"{name}: cannot read {path}: {error.strerror or error}", "name another file") from error


def _digits(name: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Digits:
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise DataError(f"{name}: images are {images.dtype} {images.shape}", "give images uint8 (N, 28, 28)")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or not len(labels):
        raise DataError(f"{name}: labels are {labels.dtype} {labels.shape}", "give one whole number for each image")
    if labels.min() < 0 or labels.max() > 255:
        raise DataError(f"{name}: labels from {labels.min()} to {labels.max()}", "give labels from 0 to 255")
    return Digits(images, labels.astype(np.int64))


def _data_set(name: str, path: Path, train: Digits, test: Digits, content: bytes) -> DataSet:
    classes = 1 + int(max(train.labels.max(), test.labels.max()))
    names = tuple(map(str, range(max(2, classes))))
    return DataSet(name, train, test, names, str(path), {path.name: f"sha256:{hashlib.sha256(content).hexdigest()}"})
