"""Real processes exchange gradients through shared memory, or, where that cannot be, through Gloo."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import clean_environment, torchrun

WORKER = Path(__file__).parents[1] / "workers" / "exchange.py"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="memory is shared on Linux on x86-64 only"
)


def outcome(folder: Path, obstacle: str) -> list[str]:
    """What gradients of two processes went through, and the checksum of the weights."""
    done = subprocess.run(
        [sys.executable, *torchrun(2), str(WORKER), str(folder), obstacle],
        env=clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(WORKER.parents[2])),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().rsplit(" ", 1)


def test_weights_are_the_same_through_shared_memory_and_where_it_cannot_be_had(tmp_path: Path) -> None:
    through, weights = outcome(tmp_path, "")
    assert through == "shared memory"
    for obstacle in ("elsewhere", "no room", "forbidden"):
        assert outcome(tmp_path, obstacle) == ["gloo", weights]
