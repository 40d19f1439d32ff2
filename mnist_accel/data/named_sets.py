"""MNIST, Fashion-MNIST, KMNIST and EMNIST: four IDX files each, packaged, in the data directory, or downloaded."""

import gzip
import hashlib
import os
import string
import tempfile
import zipfile
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
    """A data set of four files.

    Attributes:
        torchvision_class: the class in torchvision.datasets, which knows the addresses. The folder is named after it.
        md5: of the unpacked files; empty if unknown. Then only the header and the size are checked.
        files: their names, images and labels for training, then for testing, and their shapes; a size of 0 is any.
        first_label: the label of the first class.
    """

    torchvision_class: str
    class_names: tuple[str, ...]
    md5: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: IDX_FILES)
    first_label: int = 0


def _emnist(split: str, class_names: str) -> IdxSource:
    kinds = {"images-idx3": (0, 28, 28), "labels-idx1": (0,)}
    files = {f"emnist-{split}-{part}-{kind}-ubyte": kinds[kind] for part in ("train", "test") for kind in kinds}
    return IdxSource("EMNIST", tuple(class_names), files=files, first_label=int(split == "letters"))


_MERGED = string.digits + string.ascii_uppercase + "abdefghnqrt"
"""EMNIST's classes where the other small letters, which look like capital ones, count as those."""
IDX_SOURCES = {
    "mnist": IdxSource("MNIST", DIGITS, MNIST_MD5),
    "fashion-mnist": IdxSource("FashionMNIST", FASHION_NAMES),
    "kmnist": IdxSource("KMNIST", KMNIST_NAMES),
    "emnist-byclass": _emnist("byclass", string.digits + string.ascii_uppercase + string.ascii_lowercase),
    "emnist-bymerge": _emnist("bymerge", _MERGED),
    "emnist-balanced": _emnist("balanced", _MERGED),
    "emnist-letters": _emnist("letters", string.ascii_lowercase),
    "emnist-digits": _emnist("digits", string.digits),
    "emnist-mnist": _emnist("mnist", string.digits),
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
        remedy += " (560 MB)" if source.torchvision_class == "EMNIST" else ""
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
    found = list(map(arrays.__getitem__, source.files))
    if source.torchvision_class == "EMNIST":  # whose images are transposed
        found[::2] = [np.ascontiguousarray(images.swapaxes(1, 2)) for images in found[::2]]
    train, test = (
        Digits(images, labels.astype(np.int64) - source.first_label)
        for images, labels in zip(found[::2], found[1::2], strict=True)
    )
    origin = "the mnist-accel package" if folder == PACKAGED_MNIST else str(folder)
    return DataSet(name, train, test, source.class_names, origin, checksums)


def _download(name: str, folder: Path) -> None:
    """Write the missing files of a data set into `folder`. One process of a machine at a time does this."""
    import pooch  # these three here, for the start-up time
    from filelock import FileLock
    from torchvision import datasets

    source = IDX_SOURCES[name]
    published = getattr(datasets, source.torchvision_class)
    if is_archive := source.torchvision_class == "EMNIST":
        files = {published.url: published.md5}
    else:
        files = {published.mirrors[0] + file: md5 for file, md5 in published.resources}
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(timeout=SILENCE_SECONDS)
    # In the folder for temporary files, so that no lock file stays beside the data; each user has a lock of their own.
    lock = FileLock(Path(tempfile.gettempdir()) / f"mnist-accel-{os.getuid()}-{source.torchvision_class}.lock")
    try:
        with lock, tempfile.TemporaryDirectory() as temporary:
            present = read_idx_folder(folder, source)[0]  # another process may have downloaded them meanwhile
            for url, md5 in files.items():
                unpacked = url.rpartition("/")[2].removesuffix(".gz")
                if unpacked in present or present.keys() == source.files.keys():
                    continue
                path = Path(pooch.retrieve(url, f"md5:{md5}", path=temporary, downloader=downloader))
                folder.mkdir(parents=True, exist_ok=True)
                if is_archive:
                    _unpack(path, folder)
                else:
                    write_whole(folder / unpacked, gzip.decompress(path.read_bytes()))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        # The texts of requests repeat the address several times.
        cause = str(getattr(error.args[0] if error.args else None, "reason", error))
        reason = printable(cause.partition("): ")[2] or cause, 160)
        what = f"the .gz files in {url}" if is_archive else f"the four .gz files of {published.mirrors[0]}"
        raise DataError(
            f"{name} is not in {folder} and could not be downloaded ({reason})",
            f"check --data-dir and the network, or copy {what} into that folder",
        ) from error


def _unpack(archive: Path, folder: Path) -> None:
    """Write the .gz files of EMNIST's archive, those of all its data sets, into `folder`."""
    with zipfile.ZipFile(archive) as members:
        for member in members.namelist():
            if member.endswith(".gz"):
                write_whole(folder / Path(member).name, members.read(member))


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
    for file in source.files:
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
    shape = source.files[file]
    array = idx.parse(content, file, len(shape))
    if (shape[0] or len(array), *shape[1:]) != array.shape:
        raise ValueError(f"shape {array.shape}, expected {shape}")
    end = source.first_label + len(source.class_names)
    if len(shape) == 1 and not source.first_label <= array.min() <= array.max() < end:
        raise ValueError(f"labels {array.min()} to {array.max()} instead of {source.first_label} to {end - 1}")
    return array, f"md5:{md5}"
