"""IDX, the file format of MNIST: a magic number, the sizes, then the bytes.

Source: http://yann.lecun.com/exdb/mnist/ ("FILE FORMATS FOR THE MNIST DATABASE").
"""

import contextlib
import gzip
import hashlib
import io
import math
import mmap
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from mnist_accel.files.untrusted import read_limited

UNSIGNED_BYTE = 0x08
LARGE = 256 * 2**20
"""Bytes; files of this size and larger are mapped instead of read."""
LARGEST_PACKED = 2**30
"""Bytes of a .gz file's content: it cannot be mapped, so it must fit into memory."""
MADV_POPULATE_READ = 22
"""Linux madvise(2): read a mapped file ahead and fill the page table. Python's mmap module has no name for it yet."""
BLOCK, BLOCKS = 2**16, 256
"""Size in bytes and number of the blocks in the checksum of a large file. Reading all of it would take too long."""


def parse(content: bytes, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array in the unpacked content of an IDX file, without a copy: images (N, rows, columns) or labels (N,).

    Raises:
        ValueError: the header is wrong, or does not fit the size of the file.
    """
    shape = _shape(content[: 4 + 4 * dimensions], len(content), name, dimensions)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read(path: Path, dimensions: int) -> tuple[npt.NDArray[np.uint8], str]:
    """The array in a file, packed (.gz) or not, and its checksum. A large unpacked file is mapped, not read.

    Raises:
        ValueError: the file is not in this format, or is packed and too large.
        OSError, EOFError, zlib.error: the file cannot be read or unpacked.
    """
    if path.suffix != ".gz" and path.is_file() and path.stat().st_size >= LARGE:
        return _map(path, dimensions)
    content = read_unpacked(path, LARGEST_PACKED)
    return parse(content, path.name, dimensions), "sha256:" + hashlib.sha256(content).hexdigest()


def read_unpacked(path: Path, limit: int) -> bytes:
    """The content of a file, unpacked if it is a .gz file.

    Raises:
        ValueError, OSError, EOFError, zlib.error: it cannot be read or unpacked, or has more than `limit` bytes.
    """
    content = read_limited(path, limit)
    if path.suffix == ".gz":
        with gzip.open(io.BytesIO(content)) as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"{path.name} is too large to be used packed; unpack it (gunzip)")
    return content


def _map(path: Path, dimensions: int) -> tuple[npt.NDArray[np.uint8], str]:
    size, header_size = path.stat().st_size, 4 + 4 * dimensions
    with path.open("rb") as file:
        shape = _shape(file.read(header_size), size, path.name, dimensions)
        digest = hashlib.sha256(str(size).encode())
        for number in range(BLOCKS):
            file.seek(number * max(0, size - BLOCK) // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    # Mode "c" (copy on write), because torch wants writable arrays. Nothing writes to this one.
    mapped = np.memmap(path, dtype=np.uint8, mode="c", offset=header_size, shape=shape)
    if size < psutil.virtual_memory().available and isinstance(mapped.base, mmap.mmap):
        # Without this, one page fault for each randomly chosen image makes a training step a fifth longer.
        with contextlib.suppress(OSError):  # not supported before Linux 5.14 and on other systems
            mapped.base.madvise(MADV_POPULATE_READ)
    return mapped, f"sha256 of {BLOCKS} blocks:{digest.hexdigest()}"


def _shape(header: bytes, size: int, name: str, dimensions: int) -> tuple[int, ...]:
    """The shape that the header of a file of `size` bytes gives; ValueError if the file is not in this format."""
    if len(header) < 4 + 4 * dimensions:
        raise ValueError(f"{name} is cut short: {len(header)} bytes, less than the header")
    if header[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise ValueError(f"{name} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    if size != len(header) + math.prod(shape):
        raise ValueError(f"{name} has {size} bytes, but its header says {len(header) + math.prod(shape)}")
    return shape
