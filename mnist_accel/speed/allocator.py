"""How the C library gives memory out: freed memory is kept, not handed back to the system and faulted in again."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names and numbers are those of malloc.h; see mallopt(3)."""
LARGEST_FROM_HEAP = 32 * 2**20
"""Bytes; the highest threshold that glibc takes on 64-bit machines."""


def keep_freed_memory() -> None:
    """Let this process reuse the memory of one step in the next. Does nothing where the C library is not glibc.

    By default glibc maps large tensors anew each time and unmaps them again, or trims its heap after a step; on a CPU
    the page faults of that cost a quarter of a training step (docs/performance.md).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_FROM_HEAP)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
