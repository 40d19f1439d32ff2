"""What the tests share: the command line as a real process, launchers, and data of each kind."""

from __future__ import annotations

import atexit
import gzip
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import mnist_accel

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
REAL_DATA = Path(os.environ.get("MNIST_ACCEL_TEST_DATA", "data")).absolute()

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def clean_environment(**changes: str) -> dict[str, str]:
    """This environment as a user's would be: no launcher, no Accelerate settings but `changes`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith(("ACCELERATE_", "OMP_", "TORCHELASTIC_"))
    }
    return kept | {"COLUMNS": "100", "HF_HOME": "/nonexistent"} | changes


def _small_mnist(train: int = 4000, test: int = 1000) -> str:
    """A folder with IDX files of the first digits of MNIST's two parts; it is removed when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="mnist-accel-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    packaged = Path(mnist_accel.__file__).parent / "data" / "mnist_files"
    for part, samples in (("train", train), ("t10k", test)):
        for kind, dimensions, size in (("images-idx3", 3, 784), ("labels-idx1", 1, 1)):
            name = f"{part}-{kind}-ubyte"
            header_size = 4 + 4 * dimensions
            content = gzip.decompress((packaged / f"{name}.gz").read_bytes())
            header = content[:4] + struct.pack(">I", samples) + content[8:header_size]
            (folder / name).write_bytes(header + content[header_size:][: samples * size])
    return f"idx:{folder}"


SMALL_MNIST = _small_mnist()
"""For `--dataset`: 4,000 training and 1,000 test digits of MNIST."""


@pytest.fixture(autouse=True)
def user_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests in this process see the same environment as those in processes of their own."""
    for name in [*LAUNCHER_VARIABLES, *os.environ]:
        if name not in clean_environment():
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", "/nonexistent")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `python -m mnist_accel ARGUMENTS` in an empty folder."""

    def run(*arguments: object, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *launcher, "-m", "mnist_accel", *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def torchrun(processes: int) -> tuple[str, ...]:
    """The launcher's part of a command line; a free port of its own."""
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")


@pytest.fixture
def real_mnist() -> Path:
    """A data directory with the canonical MNIST files."""
    if not (REAL_DATA / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
        pytest.skip(f"MNIST is not in {REAL_DATA}; set MNIST_ACCEL_TEST_DATA to a folder that has it")
    return REAL_DATA
