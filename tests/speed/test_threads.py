import os
import subprocess
import sys

import pytest

from tests.conftest import clean_environment

PROGRAM = """
import os, torch
from pathlib import Path
from mnist_accel.speed import bound_to_first_core, start_threads

def bound():
    places = [os.sched_getaffinity(int(thread.name)) for thread in Path("/proc/self/task").iterdir()]
    return sorted(core for place in places if len(place) == 1 for core in place)

start_threads({threads}, {enabled})
with bound_to_first_core({enabled}):
    torch.ones(2**22).add_(1)
    print(bound())
print(len(os.sched_getaffinity(0)))
"""
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
several_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs Linux and two cores")


def threads_on_cores(threads: int, *, enabled: bool = True) -> list[str]:
    """The cores that have a thread bound to them during a computation, and the number of cores allowed after it."""
    program = PROGRAM.format(threads=threads, enabled=enabled)
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=clean_environment(), stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()


@several_cores
def test_each_thread_computes_on_a_core_of_its_own_and_later_all_cores_are_allowed() -> None:
    assert threads_on_cores(len(CORES)) == [str(CORES), str(len(CORES))]


@several_cores
def test_fewer_threads_than_cores_may_move() -> None:
    assert threads_on_cores(len(CORES) - 1) == ["[]", str(len(CORES))]


@several_cores
def test_without_speedups_threads_may_move() -> None:
    assert threads_on_cores(len(CORES), enabled=False) == ["[]", str(len(CORES))]
