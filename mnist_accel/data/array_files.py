"""Data sets in files of arrays: `--dataset idx:DIR` (MNIST's format), `csv:FILE` (a table) and `npz:FILE` (NumPy's)."""

import hashlib
import io
import math
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.data.digits import DataSet, checked, hold_out, numbered_classes
from mnist_accel.errors import DataError, printable
from mnist_accel.files.untrusted import most_unpacked, read_limited, refusing

LARGEST_IDX, LARGEST_FILE = 2**30, 2**31  # bytes, unpacked. The largest IDX file, images of EMNIST, has 550 MB.
PIXELS = 28 * 28
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_unpacked(path: Path) -> bytes:
    """The content of a file, unpacked if it is a .gz file."""
    content = read_limited(path, LARGEST_IDX)
    if path.suffix == ".gz":
        limit = min(LARGEST_IDX, most_unpacked(len(content)))
        stream = zlib.decompressobj(wbits=31)  # of gzip
        content = stream.decompress(content, limit)
        if not stream.eof:
            raise ValueError(f"cut short, or more than {limit:,} bytes when unpacked")
    return content


def parse_idx(content: bytes, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array in the unpacked content of an IDX file, without a copy: images (N, rows, columns) or labels (N,).

    IDX is a magic number, the sizes, then the bytes; source: "FILE FORMATS FOR THE MNIST DATABASE" in
    http://yann.lecun.com/exdb/mnist/. Raises ValueError if the header is wrong, or does not fit the size of the file.
    """
    header_size = 4 + 4 * dimensions
    if len(content) < header_size or content[:4] != bytes([0, 0, 8, dimensions]):  # 8 stands for unsigned bytes
        raise ValueError(f"{name} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if len(content) != header_size + math.prod(shape):
        raise ValueError(f"{name} has {len(content)} bytes, but its header says {header_size + math.prod(shape)}")
    return np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape)


def load_idx(name: str, folder: Path) -> DataSet:
    """Read four IDX files, packed (.gz) or not, named like MNIST's. Raises DataError if one is missing or wrong."""
    checksums: dict[str, str] = {}
    parts = []
    for words in (("train",), ("t10k", "test")):
        arrays = []
        for kind, dimensions in (("images", 3), ("labels", 1)):
            path = _find(name, folder, words, kind, f"idx{dimensions}")
            with refusing(DataError, f"{name}: {path.name} is damaged or unreadable", "replace the file"):
                content = read_unpacked(path)
                arrays.append(parse_idx(content, path.name, dimensions))
            checksums[path.name] = f"sha256:{hashlib.sha256(content).hexdigest()}"
        parts.append(checked(f"{name}, {words[0]} part", *arrays))
    train, test = parts
    return DataSet(name, train, test, numbered_classes(train, test), str(folder), checksums)


def _find(name: str, folder: Path, words: tuple[str, ...], kind: str, form: str) -> Path:
    """The only file named by one of `words`, "images" or "labels", and "idx3" or "idx1". Unpacked ones come first."""
    files = [path for path in sorted(folder.iterdir()) if any(word in path.name for word in words)]
    found = [path for path in files if kind in path.name and form in path.name]
    chosen = [path for path in found if path.suffix != ".gz"] or found
    if len(chosen) != 1:
        names = ", ".join(path.name for path in found) or "none"
        text = f"one file named …{words[0]}…{kind}…{form}… is needed in {folder}; found: {names}"
        raise DataError(f"{name}: {text}", "name the files like those of MNIST, one of each kind")
    return chosen[0]


def _wrong_line(content: bytes) -> str:
    """What is wrong in the first line of a table that is not a label and pixels; empty if there is no such line."""
    for number, line in enumerate(content.decode(errors="replace").splitlines()[1:], 2):
        fields = line.split(",")
        wrong = [field for field in fields if not re.fullmatch(r"\s*(1?\d?\d|2[0-4]\d|25[0-5])\s*", field)]
        if line.strip() and (wrong or len(fields) != 1 + PIXELS):
            columns = f"{len(fields)} columns" if len(fields) != 1 + PIXELS else ""
            return f"line {number}: {columns or repr(printable(wrong[0], 40))}"
    return ""


def load_file(name: str, path: Path) -> DataSet:
    """Read a table ("csv:…") in the form of Kaggle's MNIST, or arrays ("npz:…") in the form of Keras' MNIST.

    A table has a header line, then rows of a label and 784 pixels from 0 to 255; its test part is held out. Arrays are
    `ARRAYS`: images uint8 (N, 28, 28) and labels (N,), whole numbers. Raises DataError if the file has another form.
    """
    with refusing(DataError, f"{name}: cannot read {path}", "name another file"):
        content = read_limited(path, LARGEST_FILE)
    if is_table := name.startswith("csv:"):
        with refusing(DataError, f"{name}: not a table of numbers from 0 to 255"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "loadtxt: input contained no data")  # reported below
            try:
                table = np.loadtxt(io.BytesIO(content), np.uint8, delimiter=",", skiprows=1, ndmin=2)
            except ValueError as error:  # its text counts rows in two ways
                raise ValueError(_wrong_line(content) or str(error)) from error
            if table.shape[1] != 1 + PIXELS or not len(table):
                raise ValueError(f"{len(table)} rows of {table.shape[1]} columns; give a label and {PIXELS} pixels")
        train, test = hold_out(name, checked(name, table[:, 1:].reshape(-1, 28, 28), table[:, 0]))
    else:
        with refusing(DataError, f"{name}: no arrays {', '.join(ARRAYS)} can be read"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > most_unpacked(len(content)):
                    raise ValueError("it unpacks to more than 25 times its size")
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                x_train, y_train, x_test, y_test = (file[array] for array in ARRAYS)
        train, test = checked(name, x_train, y_train), checked(name, x_test, y_test)
    checksums = {path.name: f"sha256:{hashlib.sha256(content).hexdigest()}"}
    return DataSet(name, train, test, numbered_classes(train, test), str(path), checksums, has_test_part=not is_table)
