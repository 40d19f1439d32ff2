"""MNIST, Fashion-MNIST and KMNIST: four IDX files each, packaged, in the data directory, or downloaded."""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.data import idx
from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.data.download import LARGEST_FILE, fetch
from mnist_accel.errors import DataError

DIGITS = tuple("0123456789")
PACKAGED_MNIST = Path(__file__).parent / "mnist_files"

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_FILES = {TRAIN_IMAGES: (60000, 28, 28), TRAIN_LABELS: (60000,), TEST_IMAGES: (10000, 28, 28), TEST_LABELS: (10000,)}


@dataclass(frozen=True)
class IdxSource:
    """A data set of the four files in `IDX_FILES`. Addresses and checksums are those that torchvision lists.

    Attributes:
        torchvision_class: the class in torchvision.datasets; torchvision names the folder of the files after it.
        md5: of the unpacked files; empty if unknown. Then only the header and the size are checked.
        url: the address of the packed files (.gz); empty if they are packaged.
        packed_md5: of the packed files.
    """

    torchvision_class: str
    class_names: tuple[str, ...]
    md5: Mapping[str, str]
    url: str
    packed_md5: Mapping[str, str]


def _by_file(checksums: str) -> dict[str, str]:
    return dict(zip(IDX_FILES, checksums.split(), strict=True))


MNIST_MD5 = _by_file(
    "6bbc9ace898e44ae57da46a324031adb a25bea736e30d166cdddb491f175f624 "
    "2646ac647ad5339dbf082846283269ea 27ae3e4e09519cfbb04c329615203637"
)
FASHION_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FASHION_MD5 = _by_file(
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe "
    "bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310"
)
KMNIST_NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
KMNIST_URL = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"
KMNIST_MD5 = _by_file(
    "bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344 "
    "5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134"
)
IDX_SOURCES = {
    "mnist": IdxSource("MNIST", DIGITS, md5=MNIST_MD5, url="", packed_md5={}),
    "fashion-mnist": IdxSource("FashionMNIST", FASHION_NAMES, md5={}, url=FASHION_URL, packed_md5=FASHION_MD5),
    "kmnist": IdxSource("KMNIST", KMNIST_NAMES, md5={}, url=KMNIST_URL, packed_md5=KMNIST_MD5),
}


def load(name: str, data_dir: Path, notice: Callable[[str], None]) -> DataSet:
    """Read a complete copy in `data_dir`; otherwise read MNIST from the package and download the other sets.

    Raises:
        DataError: the files cannot be downloaded, or the packaged files are damaged.
    """
    source = IDX_SOURCES[name]
    folder = data_dir / source.torchvision_class / "raw"
    arrays, checksums, problems = read_idx_folder(folder, source)
    if problems:
        damaged = [problem for problem in problems if not problem.endswith("is missing")]
        remedy = f"downloading {name} from {source.url}" if source.url else "using the files of the mnist-accel package"
        if damaged or source.url:
            notice("; ".join([*damaged, remedy]))
        if source.url:
            missing = {f"{file}.gz": source.packed_md5[file] for file in IDX_FILES if file not in arrays}
            fetch(name, source.url, missing, folder, lambda: not read_idx_folder(folder, source)[2])
        else:
            folder = PACKAGED_MNIST
        arrays, checksums, problems = read_idx_folder(folder, source)
    if problems:
        hint = f"delete the damaged files in {folder}" if source.url else "install mnist-accel again"
        raise DataError(f"{name}: {'; '.join(problems)}", hint)
    train = Digits(arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS].astype(np.int64))
    test = Digits(arrays[TEST_IMAGES], arrays[TEST_LABELS].astype(np.int64))
    origin = "the mnist-accel package" if folder == PACKAGED_MNIST else str(folder)
    return DataSet(name, train, test, source.class_names, origin, checksums)


def read_idx_folder(
    folder: Path, source: IdxSource
) -> tuple[dict[str, npt.NDArray[np.uint8]], dict[str, str], list[str]]:
    """Read the four files of a data set, unpacked or packed (.gz).

    Returns:
        The arrays and the MD5 of the valid files by name, and one sentence about each missing or damaged file.
    """
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    checksums: dict[str, str] = {}
    problems: list[str] = []
    for file in IDX_FILES:
        problem = f"{folder / file} is missing"
        for path in (folder / file, folder / f"{file}.gz"):
            try:
                arrays[file], checksums[file] = _read(path, file, source)
                break
            except FileNotFoundError:
                continue
            except (OSError, EOFError, ValueError, zlib.error) as error:
                problem = f"{path} is damaged or unreadable ({getattr(error, 'strerror', None) or error})"
        else:
            problems.append(problem)
    return arrays, checksums, problems


def _read(path: Path, file: str, source: IdxSource) -> tuple[npt.NDArray[np.uint8], str]:
    """The array in a file and its checksum; ValueError if it is not the one that `file` must contain."""
    content = idx.read_unpacked(path, LARGEST_FILE)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 != source.md5.get(file, md5):
        raise ValueError(f"{len(content):,} bytes with MD5 {md5}, expected {source.md5[file]}")
    shape = IDX_FILES[file]
    array = idx.parse(content, file, len(shape))
    if array.shape != shape:
        raise ValueError(f"shape {array.shape}, expected {shape}")
    if len(shape) == 1 and array.max() >= 10:
        raise ValueError(f"label {array.max()} is not below 10")
    return array, f"md5:{md5}"
