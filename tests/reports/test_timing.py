import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mnist_accel import Run, TrainConfig, train
from mnist_accel.reports import timing
from mnist_accel.reports.timing import PARTIAL_FILE, Timing
from mnist_accel.training.events import Observer
from tests.conftest import SMALL_MNIST, clean_environment, forks
from tests.reports.examples import facts, result

SMALL = ("--dataset", SMALL_MNIST, "--threads", "1", "--mixed-precision", "no", "--model", "small-cnn")


def test_the_parts_of_a_run_sum_to_its_wall_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # empty, so the machine's peak is measured
    config = TrainConfig(dataset=SMALL_MNIST, threads=1, epochs=2, train_samples=1000, output_dir=tmp_path)
    began = time.perf_counter()
    spent = train(config).time_spent
    wall = time.perf_counter() - began
    assert sum(spent["seconds"].values()) == pytest.approx(wall, rel=0.02)
    assert all(seconds > 0 for seconds in spent["seconds"].values())
    assert (spent["attempts"], spent["repeated_steps"]) == (1, 0)
    assert spent["goodput"] == pytest.approx(spent["seconds"]["steps"] / spent["wall_seconds"])
    assert Run.load(tmp_path).record["time_spent"] == spent
    assert not (tmp_path / PARTIAL_FILE).exists()
    assert spent["flop_per_image"] == pytest.approx(61.0e6, rel=0.01)  # forward and backward
    useful = spent["images_per_second"] * spent["flop_per_image"]
    assert spent["peak_share"] == pytest.approx(useful / spent["matrix_flop_per_second"])


def test_the_peak_of_a_machine_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured: list[int] = []

    def measure(*arguments: Any) -> float:
        measured.append(arguments[-1])
        return 1e12

    monkeypatch.setattr(timing, "matrix_flop_per_second", measure)
    first, again = timing.machine_use(result(1)), timing.machine_use(result(1))
    assert first == again
    assert measured == [1]
    assert first["peak_share"] == pytest.approx(1e5 * first["flop_per_image"] / 1e12)
    (tmp_path / "mnist-accel" / "machine.json").write_text('{"a": "damaged"}')
    assert timing.machine_use(result(1)) == first
    assert len(measured) == 2


def test_without_a_cache_folder_the_peak_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert timing.machine_use(result(1))["matrix_flop_per_second"] > 1e8


def test_matrix_products_are_measured_in_bounded_time() -> None:
    began = time.perf_counter()
    assert timing.matrix_flop_per_second(torch.device("cpu"), torch.bfloat16, 1) > 0
    assert time.perf_counter() - began < 20  # some processors multiply bfloat16 a hundred times slower than float32


def test_the_time_of_a_killed_run_is_counted_and_its_repeated_steps_are_known(tmp_path: Path) -> None:
    killed_at = 7
    program = f"""
import os, signal
from pathlib import Path
from mnist_accel import TrainConfig, train
from mnist_accel.reports import timing
from mnist_accel.training.events import Observer
timing.WRITE_SECONDS = 0.0
class Killer(Observer):
    def step_finished(self, step, sums):
        if step + 1 == {killed_at}:
            os.kill(os.getpid(), signal.SIGKILL)
train(TrainConfig(dataset={SMALL_MNIST!r}, threads=1, model="small-cnn", mixed_precision="no", epochs=1,
    train_samples=1280, checkpoint_every=5, output_dir=Path({str(tmp_path)!r})), Killer())
"""
    done = subprocess.run([sys.executable, "-c", program], env=clean_environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    before = json.loads((tmp_path / PARTIAL_FILE).read_text())
    assert before["steps"] == killed_at
    options = ["--checkpoint-every", "5", "--resume", "auto", "--output-dir", str(tmp_path), "--json"]
    resumed = forks().run(["train", *SMALL, "--epochs", "1", "--train-samples", "1280", *options], tmp_path, 120)
    spent = json.loads(resumed.stdout.splitlines()[-1])["time_spent"]
    assert (spent["attempts"], spent["repeated_steps"]) == (2, killed_at - 5)
    assert spent["wall_seconds"] > sum(before["seconds"].values())
    assert spent["repeated_seconds"] == pytest.approx(spent["seconds"]["steps"] * 2 / 12)


def test_a_run_that_starts_anew_does_not_count_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / PARTIAL_FILE).write_text('{"seconds": {"steps": 100.0}, "attempts": 3, "steps": 50}')
    new, resumed = Timing(), Timing()
    for one, resume in ((resumed, "auto"), (new, "never")):
        one.run_started(facts(resume=resume, output_dir=str(tmp_path)))
    assert new.finish(0)["attempts"] == 1
    assert resumed.finish(50)["attempts"] == 4


def test_a_damaged_record_of_an_earlier_attempt_is_ignored(tmp_path: Path) -> None:
    (tmp_path / PARTIAL_FILE).write_text("{")
    one = Timing()
    one.run_started(facts(resume="auto", output_dir=str(tmp_path)))
    assert one.finish(0)["attempts"] == 1


def test_a_step_costs_microseconds(tmp_path: Path) -> None:
    one, none = Timing(), Observer()
    one.run_started(facts(resume="never", output_dir=str(tmp_path)))
    one.part_started("steps")
    sums = torch.zeros(3, 1)
    seconds = []
    for observer in (one, none):
        began = time.perf_counter()
        for step in range(20_000):
            observer.step_finished(step, sums)
        seconds.append((time.perf_counter() - began) / 20_000)
    assert seconds[0] - seconds[1] < 20e-6
    assert timing.WRITE_SECONDS >= 0.1
    assert os.listdir(tmp_path) == [PARTIAL_FILE]  # noqa: PTH208
