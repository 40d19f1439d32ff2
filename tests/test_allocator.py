from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from mnist_accel import allocator, baselines
if {kept}:
    allocator.keep_freed_memory()
torch.set_num_threads(1)
images, labels = torch.zeros(256, 28, 28, dtype=torch.uint8), torch.zeros(256, dtype=torch.int64)
step = baselines.bare_loop(baselines.plain_cnn(), images, labels, torch.device("cpu"), 128, is_bf16=False)
for _ in range(4):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_a_training_step_reuses_the_memory_of_the_one_before() -> None:
    def faults(kept: bool) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(kept=kept)], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults(kept=True) < faults(kept=False) / 10
