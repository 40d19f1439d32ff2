import struct

import numpy as np
import pytest

from mnist_accel.data import idx

IMAGES = struct.pack(">4B3I", 0, 0, 8, 3, 2, 3, 4) + bytes(range(24))


def test_an_array_is_read_as_written() -> None:
    assert np.array_equal(idx.parse(IMAGES, "f", 3), np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    "content",
    [b"", IMAGES[:3], IMAGES[:15], IMAGES[:-1], IMAGES + b"x", b"\1" + IMAGES[1:], IMAGES[:2] + b"\x0d" + IMAGES[3:]],
)
def test_a_damaged_file_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(ValueError, match="the-file"):
        idx.parse(content, "the-file", 3)


def test_a_header_of_terabytes_allocates_nothing() -> None:
    with pytest.raises(ValueError, match="its header says"):
        idx.parse(struct.pack(">4B3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "f", 3)
