"""IDX, the file format of MNIST: a magic number, the sizes, then the bytes.

Source: http://yann.lecun.com/exdb/mnist/ ("FILE FORMATS FOR THE MNIST DATABASE").
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import math
import mmap
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

UNSIGNED_BYTE = 0x08
LARGE = 256 * 2**20
"""Bytes from which on a file is mapped, not read."""
LARGEST_PACKED = 2**30
"""Bytes of a .gz file's content: it cannot be mapped, so it must fit into memory."""
MADV_POPULATE_READ = 22
"""Of Linux' madvise(2): read a mapped file ahead and enter its pages in the page table. mmap does not name it yet."""
BLOCK, BLOCKS = 2**16, 256
"""Bytes and number of the blocks of a large file that its checksum covers: reading all of it takes long."""


def parse(content: bytes, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes that `content` holds, without a copy.

    Args:
        content: the whole file, unpacked.
        name: the file's name, for the error.
        dimensions: 3 for images (N, rows, columns), 1 for labels (N,).

    Raises:
        ValueError: the header is another one, or promises another size than the file has.
    """
    shape = _shape(content[: 4 + 4 * dimensions], len(content), name, dimensions)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read(path: Path, dimensions: int) -> tuple[npt.NDArray[np.uint8], str]:
    """The array in a file, packed (.gz) or not, and its checksum. A large one is mapped, and read when it is used.

    Raises:
        ValueError: it is not such a file, or a packed one is too large.
        OSError, EOFError, zlib.error: it cannot be read or unpacked.
    """
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            content = stream.read(LARGEST_PACKED + 1)
        if len(content) > LARGEST_PACKED:
            raise ValueError(f"{path.name} is too large to be used packed; unpack it (gunzip)")
    elif path.stat().st_size >= LARGE:
        return _map(path, dimensions)
    else:
        content = path.read_bytes()
    return parse(content, path.name, dimensions), "sha256:" + hashlib.sha256(content).hexdigest()


def _map(path: Path, dimensions: int) -> tuple[npt.NDArray[np.uint8], str]:
    size, header_size = path.stat().st_size, 4 + 4 * dimensions
    with path.open("rb") as file:
        shape = _shape(file.read(header_size), size, path.name, dimensions)
        digest = hashlib.sha256(str(size).encode())
        for number in range(BLOCKS):
            file.seek(number * max(0, size - BLOCK) // (BLOCKS - 1))
            digest.update(file.read(BLOCK))
    # Mode "c": pages stay the file's until they are written to, which nothing does. torch wants arrays writable.
    mapped = np.memmap(path, dtype=np.uint8, mode="c", offset=header_size, shape=shape)
    if size < psutil.virtual_memory().available and isinstance(mapped.base, mmap.mmap):
        # One page fault an image, at random places, would cost a fifth of a training step.
        with contextlib.suppress(OSError):  # Linux before 5.14, other systems: pages come when they are touched
            mapped.base.madvise(MADV_POPULATE_READ)
    return mapped, f"sha256 of {BLOCKS} blocks:{digest.hexdigest()}"


def _shape(header: bytes, size: int, name: str, dimensions: int) -> tuple[int, ...]:
    """The shape in a file's header; ValueError where the file of `size` bytes is another one."""
    if len(header) < 4 + 4 * dimensions:
        raise ValueError(f"{name} is cut short: {len(header)} bytes, less than its header")
    if header[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise ValueError(f"{name} is no IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    expected = len(header) + math.prod(shape)
    if size != expected:
        raise ValueError(f"{name} has {size} bytes; its header promises {expected}")
    return shape
