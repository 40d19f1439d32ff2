"""`--dataset idx:DIR`: a data set of four IDX files."""

import hashlib
import zlib
from pathlib import Path

import numpy as np

from mnist_accel.data import idx
from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.errors import DataError

PARTS = {"train": ("train",), "test": ("t10k", "test")}
"""Words in the file names of each part of a data set."""


def load(name: str, folder: Path) -> DataSet:
    """Read IDX files, packed (.gz) or not, with names like those of MNIST or EMNIST.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others.
        OSError: the folder cannot be read.
    """
    checksums: dict[str, str] = {}
    train, test = (_read_part(name, folder, part, checksums) for part in PARTS)
    classes = 1 + int(max(train.labels.max(), test.labels.max()))
    class_names = tuple(map(str, range(max(2, classes))))
    return DataSet(name, train, test, class_names, str(folder), checksums)


def _read_part(name: str, folder: Path, part: str, checksums: dict[str, str]) -> Digits:
    arrays = []
    for kind, dimensions in (("images", 3), ("labels", 1)):
        path = _find(name, folder, part, kind, f"idx{dimensions}")
        try:
            content = idx.read_unpacked(path)
            arrays.append(idx.parse(content, path.name, dimensions))
        except (ValueError, OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{name}: {path.name} is damaged or unreadable ({reason})", "replace the file") from error
        checksums[path.name] = "sha256:" + hashlib.sha256(content).hexdigest()
    images, labels = arrays
    if images.shape[1:] != (28, 28):
        size = f"{images.shape[1]} × {images.shape[2]} pixels"
        raise DataError(f"{name}: the {part} images have {size}", "give images of 28 × 28")
    if len(images) != len(labels) or not len(images):
        counts = f"{len(images)} {part} images but {len(labels)} labels"
        raise DataError(f"{name}: {counts}", "give one label for each image")
    return Digits(images, labels.astype(np.int64))


def _find(name: str, folder: Path, part: str, kind: str, form: str) -> Path:
    """The only file of this part and kind, such as train-images-idx3-ubyte.gz. An unpacked file is preferred."""
    found = [path for path in sorted(folder.iterdir()) if kind in path.name and form in path.name]
    found = [path for path in found if any(word in path.name for word in PARTS[part])]
    unpacked = [path for path in found if path.suffix != ".gz"]
    if len(unpacked or found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(
            f"{name}: one file named …{PARTS[part][0]}…{kind}…{form}… is needed in {folder}; found: {names}",
            "name the files like those of MNIST, one of each kind",
        )
    return (unpacked or found)[0]
