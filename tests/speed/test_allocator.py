import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from mnist_accel.speed import keep_freed_memory
keep_freed_memory({enabled})
torch.set_num_threads(1)
def resident():  # MiB
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
before = resident()
tensors = [torch.ones(4 * 2**20) for _ in range(8)]  # 8 x 16 MiB, alive at once and freed together, as after a step
del tensors
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_memory_that_a_step_frees_stays_with_the_process_for_the_next() -> None:
    # Not a count of page faults: how many of them a step without the setting takes depends on where a small
    # allocation happens to lie.
    def stays(enabled: bool) -> float:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(enabled=enabled)], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    assert stays(enabled=True) > 112
    assert stays(enabled=False) < 16
