"""Keeps each of torch's threads on a core of its own, so that training stays fast beside other programs.

All threads wait for each other many times per step. Where the system lets two of them share a core, because other
programs use the others, each wait takes milliseconds (docs/performance.md). The results are the same in all bits.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

ELEMENTS = 2**15  # per thread; torch does not divide the work on fewer


def start_threads(threads: int, enabled: bool) -> None:
    """Let torch use so many threads, and bind those that this starts to cores if there is a core for each thread."""
    torch.set_num_threads(threads)
    if enabled and _have_a_core_each(threads):
        before = _threads()
        torch.zeros(threads * ELEMENTS).add_(1)
        others = sorted(os.sched_getaffinity(0))[1:]
        for thread, core in zip(sorted(_threads() - before), others, strict=False):  # none if torch had them already
            os.sched_setaffinity(thread, {core})


@contextmanager
def bound_to_first_core(enabled: bool) -> Iterator[None]:
    """Keep the calling thread on the core that `start_threads` has left for it. Threads that it starts inherit this."""
    if not (enabled and _have_a_core_each(torch.get_num_threads())):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _have_a_core_each(threads: int) -> bool:
    return hasattr(os, "sched_setaffinity") and threads == len(os.sched_getaffinity(0)) > 1


def _threads() -> set[int]:
    """Numbers of this process' threads on Linux."""
    return {int(thread.name) for thread in Path("/proc/self/task").iterdir()}
