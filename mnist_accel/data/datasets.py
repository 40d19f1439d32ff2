"""Loads a data set by the name that `--dataset` gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mnist_accel.data import idx_folder, named_sets
from mnist_accel.data.digits import DataSet, Digits, fingerprint, occurrence, select, split_off
from mnist_accel.data.download import Progress
from mnist_accel.data.named_sets import DIGITS, IDX_SOURCES, read_idx_folder
from mnist_accel.errors import DataError

__all__ = [
    "DIGITS",
    "IDX_SOURCES",
    "DataSet",
    "Digits",
    "fingerprint",
    "load",
    "occurrence",
    "read_idx_folder",
    "select",
    "split_off",
]


def load(name: str, data_dir: Path, notice: Callable[[str], None], progress: Progress) -> DataSet:
    """Read a data set; download it if it is neither packaged nor in `data_dir`.

    Args:
        name: a key of `IDX_SOURCES`, "idx:DIR" for a folder of IDX files, or "folder:DIR" for a folder of pictures.
        data_dir: a folder in torchvision's layout (FashionMNIST/raw/…).
        notice: called with one line about each unexpected event, for example a damaged file that is downloaded again.
        progress: called with the number of bytes received during a download.

    Raises:
        DataError: the data set is missing, damaged or unreadable, and cannot be downloaded.
    """
    form, _, folder = name.partition(":")
    try:
        if form == "idx":
            return idx_folder.load(name, Path(folder))
        if form == "folder":
            from mnist_accel.data import picture_folder  # here, for the start-up time: it imports SciPy

            return picture_folder.load(name, Path(folder))
        return named_sets.load(name, data_dir, notice, progress)
    except OSError as error:  # such as a folder that may not be listed
        raise DataError(f"{name}: cannot read {error.filename}: {error.strerror or error}") from error
