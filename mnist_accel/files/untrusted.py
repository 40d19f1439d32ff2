"""Reads files that may be damaged or hostile: checks the kind and the size of a file before reading it."""

import os
import stat
from pathlib import Path


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a file. Raises OSError if it is missing, more than `limit` bytes, or a device, FIFO or folder."""
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL character in the path
        raise OSError(0, str(error), str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file", str(path))
        if status.st_size > limit:
            raise OSError(0, f"{status.st_size:,} bytes, more than {limit:,}", str(path))
        content = file.read(status.st_size + 1)
    if len(content) > status.st_size:
        raise OSError(0, "the file grows while it is read", str(path))
    return content
