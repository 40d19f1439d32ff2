"""Loads a data set by the name that `--dataset` gives."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mnist_accel.data import array_files, named_sets
from mnist_accel.data.digits import DataSet
from mnist_accel.errors import DataError, did_you_mean

_read_ahead: "dict[tuple[str, Path], Future[DataSet]]" = {}


def read_ahead(name: str, data_dir: Path, notice: Callable[[str], None]) -> None:
    """Begin to read MNIST in a thread, for the next `load`. The import of torch meanwhile takes longer."""
    if name == "mnist":
        reader = ThreadPoolExecutor(1)
        _read_ahead[name, data_dir] = reader.submit(named_sets.load, name, data_dir, notice)
        reader.shutdown(wait=False)


def load(
    name: str,
    data_dir: Path,
    notice: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    skip_damaged: bool = False,
) -> DataSet:
    """Read a data set, a key of `NAMED_SETS` or one of "idx:DIR", "folder:DIR", "csv:FILE", "npz:FILE".

    `data_dir` has torchvision's layout. `notice` gets one line about a download or a damaged file, `progress` the
    numbers of finished and of all pictures. `skip_damaged` leaves out all damaged pictures, not only a few.
    """
    form, _, place = name.partition(":")
    try:
        if name in named_sets.NAMED_SETS:
            ahead = _read_ahead.pop((name, data_dir), None)
            return ahead.result() if ahead else named_sets.load(name, data_dir, notice)
        if form in ("csv", "npz"):
            return array_files.load_file(name, Path(place))
        if form not in ("idx", "folder"):
            known = (*named_sets.NAMED_SETS, "idx:DIR", "folder:DIR", "csv:FILE", "npz:FILE")
            raise DataError(f"unknown data set {name}", did_you_mean(name, known))
        if not os.path.isdir(place):  # noqa: PTH112  # Path.is_dir raises an error if the name is too long
            raise DataError(f"{name}: {place} is not a folder", "name a folder with IDX files or pictures")
        if form == "idx":
            return array_files.load_idx(name, Path(place))
        from mnist_accel.data import picture_folder  # here, for the start-up time: it imports SciPy

        return picture_folder.load(name, Path(place), notice, progress, skip_damaged=skip_damaged)
    except OSError as error:  # such as a folder that may not be listed
        raise DataError(f"{name}: cannot read {error.filename}: {error.strerror or error}") from error
