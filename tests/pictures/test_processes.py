"""Many pictures are read by several processes, which end with the program that asks."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from mnist_accel import TrainConfig, train
from mnist_accel.models import classifier
from mnist_accel.pictures import picture_file, predict, processes
from tests.conftest import SMALL_MNIST, clean_environment


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train(TrainConfig(dataset=SMALL_MNIST, epochs=1, train_samples=512, output_dir=folder))
    return folder / "mnist_cnn_model.pth"


def draw(folder: Path, pictures: int, side: int = 48) -> list[str]:
    """Write pictures of rings in random places, dark on light."""
    folder.mkdir()
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    for number in range(pictures):
        centre = random.uniform(0.4 * side, 0.6 * side, 2)
        is_ink = np.abs(np.hypot(y - centre[0], x - centre[1]) - 0.3 * side) < 0.06 * side
        Image.fromarray(np.where(is_ink, 40, 220).astype(np.uint8)).save(folder / f"{number:05}.png")
    return sorted(map(str, folder.iterdir()))


def use_three_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read also a few pictures by several processes."""
    monkeypatch.setattr(processes, "TRIAL", 0.0)
    monkeypatch.setattr(processes, "LEAST", 1e-6)
    monkeypatch.setattr(processes, "available_cores", lambda: 3)


def test_several_processes_read_the_same_as_one(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = draw(tmp_path / "rings", 300)
    Path(names[250]).write_bytes(b"rubbish")
    model = classifier.load(weights)
    alone = list(predict.read_pictures(names, model))
    use_three_processes(monkeypatch)
    torch.set_num_threads(2)
    together = list(predict.read_pictures(names, model))
    assert [result.file for result in together] == names
    assert [(result.text, result.error) for result in together] == [(result.text, result.error) for result in alone]
    assert together[250].error
    for one, other in zip(alone, together, strict=True):
        assert all(
            np.array_equal(first.image, second.image) for first, second in zip(one.digits, other.digits, strict=True)
        )
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_the_limit_of_cores_is_not_looked_up_for_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = Mock(return_value=1)
    monkeypatch.setattr(processes, "TRIAL", 0.0)
    monkeypatch.setattr(processes, "available_cores", lookup)
    assert list(processes.each(abs, range(-100, 0))) == list(range(100, 0, -1))
    lookup.assert_called_once()


def test_stdin_is_read_after_many_files(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = draw(tmp_path / "rings", 20)
    use_three_processes(monkeypatch)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(Path(names[0]).read_bytes())))
    picture_file._stdin.cache_clear()
    first, *_, last = predict.read_pictures([*names, "-"], classifier.load(weights))
    assert (last.text, last.error) == (first.text, None)


PREDICT = """
import sys
from mnist_accel import cli
from mnist_accel.pictures import processes
processes.TRIAL, processes.LEAST, processes.available_cores = 0.0, 0.1, lambda: 2
cli.main()
"""


@pytest.fixture
def reading(weights: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`predict` on many pictures, which two processes have begun to read."""
    names = draw(tmp_path / "rings", 20) * 200
    command = [sys.executable, "-c", PREDICT, "predict", *names, "--weights", str(weights)]
    process = subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
    )
    until = time.monotonic() + 60
    while len(children(process)) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that read for it."""
    found = []
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):  # another kind of child, which has ended
            found += [child] if "serve()" in child.cmdline()[-1] else []
    return found


@pytest.mark.parametrize("seconds", [0, 2])  # while the processes start, and while they read
def test_ctrl_c_stops_all_processes_that_read(reading: subprocess.Popen[str], seconds: int) -> None:
    time.sleep(seconds)
    found = children(reading)
    assert len(found) == 2
    os.killpg(reading.pid, signal.SIGINT)  # as a terminal does: to all processes of the command
    _, errors = reading.communicate(timeout=20)
    assert (reading.returncode, errors.count("\n")) == (130, 1), errors
    assert not psutil.wait_procs(found, timeout=10)[1]


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_killed_process_that_reads_is_named_in_one_line(reading: subprocess.Popen[str], seconds: int) -> None:
    time.sleep(seconds)
    found = children(reading)
    found[-1].kill()
    _, errors = reading.communicate(timeout=20)
    assert (reading.returncode, errors.count("\n")) == (75, 1), errors
    assert "a process that reads pictures has ended" in errors
    assert not psutil.wait_procs(found, timeout=10)[1]
