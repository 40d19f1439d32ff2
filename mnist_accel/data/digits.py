"""The types of a data set, and functions that check and divide it."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_accel.errors import DataError

TEST_SHARE = 6  # one in this many samples of a class is used for testing where a data set has no test part


@dataclass(frozen=True)
class Digits:
    """N images with their labels."""

    images: npt.NDArray[np.uint8]  # (N, 28, 28)
    labels: npt.NDArray[np.int64]  # (N,)
    files: npt.NDArray[np.object_] | None = None  # their names (N,), if each image has its own file

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A data set with its parts."""

    name: str
    train: Digits
    test: Digits
    class_names: tuple[str, ...]
    source: str  # the folder or package
    checksums: Mapping[str, str]  # of the files, by name
    has_test_part: bool = True  # False where the test part was divided off by `hold_out`
    validation: Digits | None = None  # training samples that are held out


def fingerprint(data: DataSet) -> str:
    """One line that is equal on two processes only if both loaded the same data."""
    return json.dumps([data.name, len(data.train), len(data.test), dict(data.checksums)], sort_keys=True)


def checked(name: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> Digits:
    """Images and labels of the user's file `name`. Raises DataError if their shapes, types or values do not fit."""
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise DataError(f"{name}: images are {images.dtype} {images.shape}", "give images uint8 (N, 28, 28)")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or not len(labels):
        text = f"labels are {labels.dtype} {labels.shape} for {len(images)} images"
        raise DataError(f"{name}: {text}", "give one whole number for each image")
    if labels.min() < 0 or labels.max() > 255:
        raise DataError(f"{name}: labels from {labels.min()} to {labels.max()}", "give labels from 0 to 255")
    return Digits(images, labels.astype(np.int64))


def numbered_classes(*parts: Digits) -> tuple[str, ...]:
    """Class names where labels are all that is known: "0", "1", … to the largest label, at least two."""
    return tuple(map(str, range(max(2, *(1 + int(part.labels.max()) for part in parts)))))


def occurrence(labels: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number the samples of each class 0, 1, 2, … in this order of the samples; shape (N,)."""
    numbers = np.empty_like(order)
    for label in np.unique(labels):
        here = order[labels[order] == label]
        numbers[here] = np.arange(len(here))
    return numbers


def first_equal(*parts: Digits) -> npt.NDArray[np.int64]:
    """For each image of the parts in turn, the index of the first one with the same pixels; shape (N,)."""
    firsts: dict[bytes, int] = {}
    images = itertools.chain(*(part.images for part in parts))
    return np.array([firsts.setdefault(blake2b(image.tobytes()).digest(), at) for at, image in enumerate(images)])


def select(digits: Digits, indices: npt.NDArray[Any]) -> Digits:
    """A copy of the digits at `indices`, or of those that a mask chooses."""
    files = None if digits.files is None else digits.files[indices]
    return Digits(digits.images[indices], digits.labels[indices], files)


def split_off(digits: Digits, size: int, seed: int) -> tuple[Digits, Digits]:
    """Divide into `size` random digits, balanced over the classes as far as possible, and the rest; order is kept."""
    if size > len(digits):
        problem = f"--validation-samples {size}: there are {len(digits)} training samples"
        raise DataError(problem, f"give at most {len(digits)}")
    shuffled = np.random.default_rng(seed).permutation(len(digits))
    rounds = occurrence(digits.labels, shuffled)[shuffled]  # first one digit of each class, then a second of each, …
    order = shuffled[np.argsort(rounds, kind="stable")]
    return select(digits, np.sort(order[:size])), select(digits, np.sort(order[size:]))


def hold_out(name: str, digits: Digits) -> tuple[Digits, Digits]:
    """Training and test digits: one in `TEST_SHARE` of each class, always the same ones."""
    order = np.random.default_rng(0).permutation(len(digits))  # always the same
    is_test = occurrence(digits.labels, order) % TEST_SHARE == TEST_SHARE - 1
    if not is_test.any():
        raise DataError(f"{name}: too few samples to hold some out", f"give a class at least {TEST_SHARE}")
    return select(digits, ~is_test), select(digits, is_test)


def fold(data: DataSet, part: str) -> DataSet:
    """Fold K of N, where `part` is "K/N": part K of the training set for testing, and the others for training.

    Each class is divided evenly; equal images are in the same part. A test part is left out, unless it was held out.
    """
    number, parts = map(int, part.split("/"))
    sources = [data.train] if data.has_test_part else [data.train, data.test]
    digits = Digits(*(np.concatenate([getattr(source, name) for source in sources]) for name in ("images", "labels")))
    order = np.random.default_rng(0).permutation(len(digits))  # always the same
    part_of = 1 + occurrence(digits.labels, order) % parts
    is_test = part_of[first_equal(digits)] == number
    if is_test.all() or not is_test.any():
        raise DataError(f"{data.name}: part {part} of the training set or the rest has no samples", "give fewer folds")
    return replace(data, train=select(digits, ~is_test), test=select(digits, is_test))
