"""Real processes train with and without mnist_accel/speed, and where it cannot share memory."""

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import clean_environment, torchrun

WORKER = Path(__file__).parents[1] / "workers" / "exchange.py"
needs_shared_memory = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="memory is shared on Linux on x86-64 only"
)


def trained(processes: int, **settings: Any) -> dict[str, Any]:
    """Train a few steps; how gradients were exchanged, the loss of each step, and the checksum of the weights."""
    launcher = torchrun(processes) if processes > 1 else ()
    done = subprocess.run(
        [sys.executable, *launcher, str(WORKER), json.dumps(settings)],
        env=clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(WORKER.parents[2])),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_the_allocator_changes_no_bit_and_the_layout_changes_rounding_only() -> None:
    off, on = trained(1, speedups=False), trained(1, speedups=True)
    assert trained(1, speedups=True, layout=False) == off
    assert on["losses"] == pytest.approx(off["losses"], rel=1e-4)
    assert off["layouts"] == [False]
    assert on["layouts"] == [torch.backends.cpu.get_cpu_capability().startswith("AVX512")]


@needs_shared_memory
def test_shared_memory_gives_the_same_bits_as_the_backend() -> None:
    shared, gloo = trained(2, speedups=True, layout=False), trained(2, speedups=False)
    assert (shared.pop("exchange"), gloo.pop("exchange")) == ("shared memory", "gloo")
    assert shared == gloo


@needs_shared_memory
@pytest.mark.parametrize(
    "obstacle", ["elsewhere", *(pytest.param(name, marks=pytest.mark.slow) for name in ("no room", "forbidden"))]
)
def test_where_memory_cannot_be_shared_the_backend_exchanges_gradients(obstacle: str) -> None:
    assert trained(2, speedups=True, obstacle=obstacle)["exchange"] == "gloo"
