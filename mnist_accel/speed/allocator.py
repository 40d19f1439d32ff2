"""Memory allocation of the C library."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h; see mallopt(3)


def keep_freed_memory(enabled: bool) -> None:
    """Let this process reuse the memory of one step in the next. Does nothing unless the C library is glibc.

    By default glibc returns freed memory to the system after a step and requests it again in the next one. On a CPU
    the page faults of that cost a quarter of a training step (docs/performance.md).
    """
    if enabled and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)  # bytes; the highest that glibc takes on 64-bit machines
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
