"""Fixtures for all tests: the command line as a real process, launchers, and data."""

import atexit
import functools
import gzip
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mnist_accel
from tests.workers.forks import Forks

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PACKAGED_MNIST = Path(mnist_accel.__file__).parent / "data" / "mnist_files"

CACHE = tempfile.mkdtemp(prefix="mnist-accel-cache-")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)

BLANK = b"\x89PNG\r\n\x1a\n"

LONGEST = (
    *("training/test_signals", "training/test_distributed", "docs/test_documents", "checks/", "training/test_train"),
    *("scripts/", "reports/test_groups", "reports/test_tracking", "models/", "demo/", "training/", "speed/", "export/"),
)
"""Folders and files that take longest. They are run first, so that no worker waits for another at the end."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by `LONGEST`; those of a file stay in order."""
    places = {item: [place for place, name in enumerate(LONGEST) if f"tests/{name}" in item.nodeid] for item in items}
    items.sort(key=lambda item: min(places[item], default=len(LONGEST)))


def clean_environment(**changes: str) -> dict[str, str]:
    """This environment without the variables of launchers and of Accelerate, and with `changes`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith(("ACCELERATE_", "OMP_", "TORCHELASTIC_"))
    }
    usual = {"COLUMNS": "100", "HF_HOME": "/nonexistent", "XDG_CACHE_HOME": CACHE}
    # Idle threads that spin take the cores from the processes of other tests, and two threads wait for each other.
    return kept | usual | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"} | changes


def small_mnist(train: int = 4000, test: int = 1000) -> str:
    """`idx:` and a folder with the first digits of MNIST's training and test parts; removed when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="mnist-accel-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for part, samples in (("train", train), ("t10k", test)):
        for kind, dimensions, size in (("images-idx3", 3, 784), ("labels-idx1", 1, 1)):
            name = f"{part}-{kind}-ubyte"
            header_size = 4 + 4 * dimensions
            with gzip.open(PACKAGED_MNIST / f"{name}.gz") as packed:
                header = packed.read(header_size)
                content = packed.read(samples * size)
            (folder / name).write_bytes(header[:4] + struct.pack(">I", samples) + header[8:] + content)
    return f"idx:{folder}"


SMALL_MNIST = small_mnist(test=300)
"""For `--dataset`: 4,000 training and 300 test digits of MNIST."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Train and predict on one thread in this process: tests run in as many processes as there are cores."""
    import torch  # here, because the controlling process of pytest-xdist does not need it

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_accel.hardware.accelerator.available_cores", lambda: 1)
        yield


@pytest.fixture(autouse=True)
def user_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give tests that run in this process the same environment as those that start processes."""
    for name in [*LAUNCHER_VARIABLES, *os.environ]:
        if name not in clean_environment():
            monkeypatch.delenv(name, raising=False)
    for name, value in clean_environment().items():
        monkeypatch.setenv(name, value)


@functools.cache
def forks() -> Forks:
    """The process that forks the commands of this test process."""
    return Forks(clean_environment())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `python -m mnist_accel ARGUMENTS` in an empty folder.

    Without a launcher and changes of the environment, it is a fork of a process that has imported torch.
    """

    def run(*arguments: object, launcher: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments)]
        seconds = 800  # longer than pytest's own limit of 300 s, which a slow test can raise
        if sys.platform == "linux" and not launcher and not environment:
            return forks().run(words, tmp_path, seconds)
        return subprocess.run(
            [sys.executable, *launcher, "-m", "mnist_accel", *words],
            cwd=tmp_path,
            env=clean_environment(**environment),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    return run


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the pictures of a run by an empty one: drawing takes longer than a small training."""
    for name in ("training_history", "sample_predictions", "confusion_matrix", "worst_mistakes"):
        monkeypatch.setattr(f"mnist_accel.reports.plots.{name}", lambda *_: BLANK)


def torchrun(processes: int) -> tuple[str, ...]:
    """The part of a command line that launches `processes` processes, on a free port."""
    return ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}")


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in torchvision's layout, with the unpacked files of MNIST. Tests do not change it."""
    folder = tmp_path_factory.mktemp("data")
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in PACKAGED_MNIST.glob("*.gz"):
        (raw / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return folder
