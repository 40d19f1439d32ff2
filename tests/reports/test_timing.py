import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mnist_accel import Run, TrainConfig, train
from mnist_accel.reports import timing
from mnist_accel.reports.timing import PARTIAL_FILE, Timing
from mnist_accel.training.events import Observer
from tests.conftest import SMALL_MNIST, clean_environment
from tests.reports.examples import facts

SMALL = ("--dataset", SMALL_MNIST, "--threads", "1", "--mixed-precision", "no", "--model", "small-cnn")


def test_the_parts_of_a_run_sum_to_its_wall_time(tmp_path: Path) -> None:
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
    command = [sys.executable, "-m", "mnist_accel", "train", *SMALL, "--epochs", "1", "--train-samples", "1280"]
    options = ["--checkpoint-every", "5", "--resume", "auto", "--output-dir", str(tmp_path), "--json"]
    resumed = subprocess.run([*command, *options], env=clean_environment(), capture_output=True, text=True, check=True)
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
