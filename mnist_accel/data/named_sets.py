"""The data sets of `named_sets.toml`: four IDX files each, packaged, in the data directory, or downloaded."""

import hashlib
import os
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.data import array_files
from mnist_accel.data.digits import DataSet, checked
from mnist_accel.errors import DataError, printable
from mnist_accel.files.atomic import exists, publish
from mnist_accel.files.untrusted import refusing

PACKAGED_MNIST = Path(__file__).parent / "mnist_files"


@dataclass(frozen=True)
class NamedSet:
    """A data set of four files; `named_sets.toml` explains the fields."""

    torchvision: str
    classes: Sequence[str]
    prefix: str = ""
    first_label: int = 0
    md5: Sequence[str] = ("",) * 4

    @property
    def files(self) -> tuple[str, ...]:
        """Their unpacked names: training images and labels, test images and labels."""
        parts = (f"{self.prefix}train", f"{self.prefix}test" if self.prefix else "t10k")
        return tuple(f"{part}-{kind}-ubyte" for part in parts for kind in ("images-idx3", "labels-idx1"))


_TABLES = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
NAMED_SETS = {name: NamedSet(**table) for name, table in _TABLES.items()}


def load(name: str, data_dir: Path, notice: Callable[[str], None]) -> DataSet:
    """Read a complete copy in `data_dir`; otherwise read MNIST from the package and download the other sets."""
    source, is_packaged = NAMED_SETS[name], name == "mnist"
    folder = data_dir / source.torchvision / "raw"
    arrays, checksums, damages = read_folder(folder, source)
    if len(arrays) < len(source.files):
        remedy = "using the files of the mnist-accel package" if is_packaged else f"downloading {name}"
        remedy += " (560 MB)" if source.torchvision == "EMNIST" else ""
        if damages or not is_packaged:
            notice("; ".join([*damages, remedy]))
        if is_packaged:
            folder = PACKAGED_MNIST
        else:
            _download(name, folder)
        arrays, checksums, _ = read_folder(folder, source)
    if len(arrays) < len(source.files):
        raise DataError(f"{name}: files are missing or damaged in {folder}", "install mnist-accel again")
    images, labels = list(arrays.values())[::2], list(arrays.values())[1::2]
    if source.torchvision == "EMNIST":  # whose images are transposed
        images = [np.ascontiguousarray(part.swapaxes(1, 2)) for part in images]
    train, test = (checked(name, *part) for part in zip(images, labels, strict=True))
    origin = "the mnist-accel package" if folder == PACKAGED_MNIST else str(folder)
    return DataSet(name, train, test, tuple(source.classes), origin, checksums)


def _download(name: str, folder: Path) -> None:
    """Write the missing files of a data set into `folder`. One process of a machine at a time does this."""
    import pooch  # these three here, for the start-up time
    from filelock import FileLock
    from torchvision import datasets

    source = NAMED_SETS[name]
    published = getattr(datasets, source.torchvision)
    if source.torchvision == "EMNIST":  # an archive of all its data sets
        address, checksums = published.url, {published.url: published.md5}
    else:
        address = published.mirrors[0]
        checksums = {address + file: md5 for file, md5 in published.resources}
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(timeout=5)  # seconds, for a connection and for the next bytes
    # In the folder for temporary files, so that no lock file stays beside the data; each user has a lock of their own.
    lock = FileLock(Path(tempfile.gettempdir()) / f"mnist-accel-{os.getuid()}-{source.torchvision}.lock")
    try:
        with lock, tempfile.TemporaryDirectory() as temporary:
            present = read_folder(folder, source)[0]  # another process may have downloaded them meanwhile
            for url, md5 in checksums.items():
                if Path(url).stem not in present and present.keys() != set(source.files):
                    unpack = pooch.Unzip() if url.endswith(".zip") else pooch.Decompress(name=Path(url).stem)
                    found = pooch.retrieve(url, f"md5:{md5}", None, temporary, unpack, downloader)
                    folder.mkdir(parents=True, exist_ok=True)
                    for path in map(Path, [found] if isinstance(found, str) else found):
                        publish({folder / path.name: path.read_bytes()})
    except (OSError, ValueError) as error:
        # The texts of requests repeat the address several times.
        cause = str(getattr(error.args[0] if error.args else None, "reason", error))
        reason = printable(cause.partition("): ")[2] or cause, 160)
        raise DataError(
            f"{name} is not in {folder} and could not be downloaded ({reason})",
            f"check --data-dir and the network, or copy the .gz files in {address} into that folder",
        ) from error


def read_folder(folder: Path, source: NamedSet) -> tuple[dict[str, npt.NDArray[np.uint8]], dict[str, str], list[str]]:
    """The arrays and the MD5 of the valid files by name, and one sentence about each damaged file."""
    arrays: dict[str, npt.NDArray[np.uint8]] = {}
    checksums, damages = {}, {}
    for number, file in enumerate(source.files):
        for path in filter(exists, (folder / file, folder / f"{file}.gz")):
            try:
                with refusing(DataError, f"{path} is damaged or unreadable"):
                    arrays[file], checksums[file] = _read(path, number, source)
                break
            except DataError as error:
                damages[file] = error.message
    return arrays, checksums, [text for file, text in damages.items() if file not in arrays]


def _read(path: Path, number: int, source: NamedSet) -> tuple[npt.NDArray[np.uint8], str]:
    """File `number` of a data set, labels counted from 0, and its checksum; ValueError if it is another file."""
    content = array_files.read_unpacked(path)
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if source.md5[number] not in ("", md5):
        raise ValueError(f"{len(content):,} bytes with MD5 {md5}, expected {source.md5[number]}")
    is_images = number % 2 == 0
    array = array_files.parse_idx(content, path.name, 3 if is_images else 1)
    first, end = source.first_label, source.first_label + len(source.classes)
    if not is_images and not first <= array.min() <= array.max() < end:
        raise ValueError(f"labels {array.min()} to {array.max()} instead of {first} to {end - 1}")
    return array if is_images else np.subtract(array, first, dtype=np.uint8), f"md5:{md5}"
