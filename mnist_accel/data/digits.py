"""The types of a data set, and functions that divide it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mnist_accel.errors import DataError

TEST_SHARE = 6
"""One in this many samples of a class is used for testing where a data set has no test part."""


@dataclass(frozen=True)
class Digits:
    """Images uint8 (N, 28, 28), their labels int64 (N,), and the names of their files (N,) if each has its own."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    files: npt.NDArray[np.object_] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A training part, a test part, the folder or package they come from, and the checksums of its files by name.

    Attributes:
        has_test_part: False where the test part was divided off by `hold_out`.
    """

    name: str
    train: Digits
    test: Digits
    class_names: tuple[str, ...]
    source: str
    checksums: Mapping[str, str]
    has_test_part: bool = True


def fingerprint(data: DataSet) -> str:
    """One line that is equal on two processes only if both loaded the same data."""
    return json.dumps([data.name, len(data.train), len(data.test), dict(data.checksums)], sort_keys=True)


def occurrence(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of equal labels before each label; shape (N,)."""
    counts = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        here = labels == label
        counts[here] = np.arange(here.sum())
    return counts


def select(digits: Digits, indices: npt.NDArray[np.int64]) -> Digits:
    """A copy of the digits at `indices`."""
    files = None if digits.files is None else digits.files[indices]
    return Digits(digits.images[indices], digits.labels[indices], files)


def split_off(digits: Digits, size: int, seed: int, option: str) -> tuple[Digits, Digits]:
    """Divide into `size` random digits, balanced over the classes as far as possible, and the rest; order is kept.

    Raises:
        DataError: there are fewer than `size` digits; its text names `option`, the option that gave `size`.
    """
    if size > len(digits):
        raise DataError(f"{option} {size}: there are {len(digits)} training samples", f"give at most {len(digits)}")
    shuffled = np.random.default_rng(seed).permutation(len(digits))
    rounds = occurrence(digits.labels[shuffled])  # first one digit of each class, then a second of each, …
    order = shuffled[np.argsort(rounds, kind="stable")]
    return select(digits, np.sort(order[:size])), select(digits, np.sort(order[size:]))


def hold_out(name: str, digits: Digits) -> tuple[Digits, Digits]:
    """Training and test digits: one in `TEST_SHARE` of each class, chosen at random with a fixed seed.

    Raises:
        DataError: no class has so many digits; its text names `name`, the data set.
    """
    order = np.random.default_rng(0).permutation(len(digits))
    is_test = np.empty(len(order), dtype=np.bool_)
    is_test[order] = occurrence(digits.labels[order]) % TEST_SHARE == TEST_SHARE - 1
    if not is_test.any():
        raise DataError(f"{name}: too few samples to hold some out", f"give a class at least {TEST_SHARE}")
    return select(digits, np.flatnonzero(~is_test)), select(digits, np.flatnonzero(is_test))


def fold(data: DataSet, part: str) -> DataSet:
    """Fold K of N, where `part` is "K/N": part K of the training set for testing, and the others for training.

    Each class is divided evenly, always in the same way. Images that are equal in all pixels are in the same part. The
    test part of the data set is left out, unless it was divided off the training set.

    Raises:
        DataError: the part or the others have no samples.
    """
    number, parts = map(int, part.split("/"))
    images, labels = data.train.images, data.train.labels
    if not data.has_test_part:
        images = np.concatenate([images, data.test.images])
        labels = np.concatenate([labels, data.test.labels])
    order = np.random.default_rng(0).permutation(len(labels))
    part_of = np.empty(len(order), np.int64)
    part_of[order] = 1 + occurrence(labels[order]) % parts
    firsts: dict[bytes, int] = {}
    is_test = part_of[[firsts.setdefault(image.tobytes(), index) for index, image in enumerate(images)]] == number
    if is_test.all() or not is_test.any():
        raise DataError(f"{data.name}: part {part} of the training set or the rest has no samples", "give fewer folds")
    return replace(
        data, train=Digits(images[~is_test], labels[~is_test]), test=Digits(images[is_test], labels[is_test])
    )
