"""Reads files that may be damaged or hostile: checks the kind and the size of a file before reading it."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from mnist_accel.errors import UserError, printable


@contextlib.contextmanager
def refusing(kind: type[UserError], problem: str, hint: str = "") -> Iterator[None]:
    """Turn any error into one of `kind`, with the reason in brackets. Readers of files raise errors of many types."""
    try:
        yield
    except Exception as error:
        text = getattr(error, "strerror", None) or getattr(error, "message", error)
        if isinstance(error, ValidationError):
            first, *_ = error.errors()
            place, wrong = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            text = f"{place}: {wrong}" if place else wrong
        reason = printable(repr(error) if isinstance(error, KeyError) else text, 160) or type(error).__name__
        raise kind(f"{problem} ({reason})", hint) from error


def most_unpacked(packed: int) -> int:
    """The bytes to which a file of `packed` bytes may unpack. Pictures of digits have 5 times the size, bombs 1,000."""
    return max(2**27, 25 * packed)


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a file. Raises OSError if it is missing, more than `limit` bytes, or a device, FIFO or folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else opening a FIFO waits for a writer
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", str(path))
        if status.st_size > limit:
            raise OSError(0, f"{status.st_size:,} bytes, more than {limit:,}", str(path))
        return file.read(status.st_size)  # read(limit) would first take memory for `limit` bytes
