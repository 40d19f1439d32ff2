"""MNIST, Fashion-MNIST and KMNIST: four IDX files each, packaged, in the data directory, or downloaded."""

import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.data import idx
from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.errors import DataError, printable
from mnist_accel.files.atomic import write_whole

DIGITS = tuple("0123456789")
PACKAGED_MNIST = Path(__file__).parent / "mnist_files"
SILENCE_SECONDS = 5
"""The longest wait for a connection, and for the next bytes of a download."""

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX_FILES = {TRAIN_IMAGES: (60000, 28, 28), TRAIN_LABELS: (60000,), TEST_IMAGES: (10000, 28, 28), TEST_LABELS: (10000,)}
MNIST_MD5 = {
    TRAIN_IMAGES: "6bbc9ace898e44ae57da46a324031adb",
    TRAIN_LABELS: "a25bea736e30d166cdddb491f175f624",
    TEST_IMAGES: "2646ac647ad5339dbf082846283269ea",
    TEST_LABELS: "27ae3e4e09519cfbb04c329615203637",
}
FASHION_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
KMNIST_NAMES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


@dataclass(frozen=True)
class IdxSource:
    """A data set of the four files in `IDX_FILES`.

    Attributes:
        torchvision_class: the class in torchvision.datasets, which knows the addresses. The folder is named after it.
        md5: of the unpacked files; empty if unknown. Then only the header and the size are checked.
    """

    torchvision_class: str
    class_names: tuple[str, ...]
    md5: Mapping[str, str] = field(default_factory=dict)


IDX_SOURCES = {
    "mnist": IdxSource("MNIST", DIGITS, MNIST_MD5),
    "fashion-mnist": IdxSource("FashionMNIST", FASHION_NAMES),
    "kmnist": IdxSource("KMNIST", KMNIST_NAMES),
}


def load(name: str, data_dir: Path, notice: Callable[[str], None]) -> DataSet:
    """Read a complete copy in `data_dir`; otherwise read MNIST from the package and download the other sets.

    Raises:
        DataError: the files cannot be downloaded, or the packaged files are damaged.
        OutputError: downloaded files cannot be written.
    """
    source, is_packaged = IDX_SOURCES[name], name == "mnist"
    folder = data_dir / source.torchvision_class / "raw"
    arrays, checksums, problems = read_idx_folder(folder, source)
    if problems:
        damaged = [problem for problem in problems if not problem.endswith("is missing")]
        remedy = "using the files of the mnist-accel package" if is_packaged else f"downloading {name}"
        if damaged or not is_packaged:
            notice("; ".join([*damaged, remedy]))
        if is_packaged:
            folder = PACKAGED_MNIST
        else:
            _download(name, folder)
        arrays, checksums, problems = read_idx_folder(folder, source)
    if problems:
        hint = "install mnist-accel again" if is_packaged else f"delete the damaged files in {folder}"
        raise DataError(f"{name}: {'; '.join(problems)}", hint)
    train = Digits(arrays[TRAIN_IMAGES], arrays[TRAIN_LABELS].astype(np.int64))
    test = Digits(arrays[TEST_IMAGES], arrays[TEST_LABELS].astype(np.int64))
    origin = "the mnist-accel package" if folder == PACKAGED_MNIST else str(folder)
    return DataSet(name, train, test, source.class_names, origin, checksums)


def _download(name: str, folder: Path) -> None:
    """Write the missing files of a data set, unpacked, into `folder`. One process of a machine at a time does this."""
    import pooch  # these three here, for the start-up time
    from filelock import FileLock
    from torchvision import datasets

    source = IDX_SOURCES[name]
    published = getattr(datasets, source.torchvision_class)
    url = published.mirrors[0]
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(timeout=SILENCE_SECONDS)
    # In the folder for temporary files, so that no lock file stays beside the data; each user has a lock of their own.
    lock = FileLock(Path(tempfile.gettempdir()) / f"mnist-accel-{os.getuid()}-{name}.lock")
    try:
        with lock, tempfile.TemporaryDirectory() as temporary:
            present = read_idx_folder(folder, source)[0]  # another process may have downloaded them meanwhile
            for file, md5 in published.resources:
                unpacked = file.removesuffix(".gz")
                if unpacked not in present:
                    path = pooch.retrieve(url + file, f"md5:{md5}", path=temporary, downloader=downloader)
                    folder.mkdir(parents=True, exist_ok=True)
                    write_whole(folder / unpacked, gzip.decompress(Path(path).read_bytes()))
    except (OSError, ValueError) as error:
        # The texts of requests repeat the address several times.
        cause = str(getattr(error.args[0] if error.args else None, "reason", error))
        reason = printable(cause.partition("): ")[2] or cause, 160)
        raise DataError(
            f"{name} is not in {folder} and could not be downloaded ({reason})",
            f"check --data-dir and the network, or copy the four .gz files of {url} into that folder",
        ) from error


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
    content = idx.read_unpacked(path)
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
