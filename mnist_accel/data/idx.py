"""IDX, the file format of MNIST: a magic number, the sizes, then the bytes.

Source: http://yann.lecun.com/exdb/mnist/ ("FILE FORMATS FOR THE MNIST DATABASE").
"""

import gzip
import io
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.files.untrusted import most_unpacked, read_limited

UNSIGNED_BYTE = 0x08
LARGEST_FILE = 2**30
"""Bytes, unpacked. The images of EMNIST, the largest set of this kind, have 550 MB."""


def read_unpacked(path: Path) -> bytes:
    """The content of a file, unpacked if it is a .gz file.

    Raises:
        ValueError, OSError, EOFError, zlib.error: it cannot be read or unpacked, or exceeds `LARGEST_FILE`.
    """
    content = read_limited(path, LARGEST_FILE)
    if path.suffix == ".gz":
        limit = min(LARGEST_FILE, most_unpacked(len(content)))
        with gzip.open(io.BytesIO(content)) as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"more than {limit:,} bytes when unpacked")
    return content


def parse(content: bytes, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array in the unpacked content of an IDX file, without a copy: images (N, rows, columns) or labels (N,).

    Raises:
        ValueError: the header is wrong, or does not fit the size of the file.
    """
    header_size = 4 + 4 * dimensions
    if len(content) < header_size:
        raise ValueError(f"{name} is cut short: {len(content)} bytes, less than the header")
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise ValueError(f"{name} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if len(content) != header_size + math.prod(shape):
        raise ValueError(f"{name} has {len(content)} bytes, but its header says {header_size + math.prod(shape)}")
    return np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape)
