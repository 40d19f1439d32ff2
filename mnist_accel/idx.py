"""IDX, the file format of MNIST: a magic number, the sizes, then the bytes.

Source: http://yann.lecun.com/exdb/mnist/ ("FILE FORMATS FOR THE MNIST DATABASE").
"""

from __future__ import annotations

import math
import struct

import numpy as np
import numpy.typing as npt

UNSIGNED_BYTE = 0x08


def parse(content: bytes, name: str, dimensions: int) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes that `content` holds, without a copy.

    Args:
        content: the whole file, unpacked.
        name: the file's name, for the error.
        dimensions: 3 for images (N, rows, columns), 1 for labels (N,).

    Raises:
        ValueError: the header is another one, or promises another size than the file has.
    """
    header_size = 4 + 4 * dimensions
    if len(content) < header_size:
        raise ValueError(f"{name} is cut short: {len(content)} bytes, less than its header")
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]):
        raise ValueError(f"{name} is no IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    expected = header_size + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"{name} has {len(content)} bytes; its header promises {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape)
