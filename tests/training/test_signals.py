"""Real signals to real processes: what a cluster, a keyboard and a full disk do to a run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mnist_accel.hardware.cores import available_cores
from tests.conftest import Run, clean_environment, forks, small_mnist, torchrun

SMALL_MNIST = small_mnist(test=100)
RUN = (
    *("train", "--dataset", SMALL_MNIST, "--train-samples", "800", "--batch-size", "50", "--epochs", "5"),
    *("--checkpoint-every", "5", "--threads", "1", "--cpu"),
)
TWO = pytest.mark.skipif(available_cores() < 2, reason="two processes need two cores")


class Live:
    """A command that is running, in a session of its own, and what it says."""

    def __init__(self, folder: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> None:
        self.log = folder / "stderr.log"
        with self.log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *launcher, "-m", "mnist_accel", *arguments],
                cwd=folder,
                env=clean_environment(),
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                preexec_fn=_like_a_shell,
            )

    def wait_for(self, sign: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not sign():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)

    def wait_for_epoch(self, epoch: int) -> None:
        """Until that many epochs are done."""
        self.wait_for(lambda: f" {epoch}/5 " in self.log.read_text())

    def workers(self) -> list[psutil.Process]:
        """The processes that train, in the order of their ranks."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        ranks = {int(child.environ().get("RANK", 0)): child for child in children if "mnist_accel" in child.cmdline()}
        return [ranks[rank] for rank in sorted(ranks)]

    def end(self, seconds: float = 60) -> tuple[int, str]:
        """Exit code and stderr."""
        code = self.process.wait(seconds)
        return code, self.log.read_text()


def _like_a_shell() -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit that it is ignored


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Starts commands; none outlives the test."""
    started: list[Live] = []

    def start(*arguments: str, launcher: tuple[str, ...] = ()) -> Live:
        started.append(Live(tmp_path, *arguments, launcher=launcher))
        return started[-1]

    yield start
    for one in started:
        leftovers = [one.process.pid, *(child.pid for child in _children(one.process.pid))]
        for pid in leftovers:
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, signal.SIGKILL)
        one.process.wait()


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """The hash of the weights of an uninterrupted run in so many processes."""
    known: dict[int, str] = {}

    def run(processes: int) -> str:
        if processes not in known:
            folder = tmp_path_factory.mktemp("whole")
            done = forks().run([*RUN, "--json", "--processes", str(processes)], folder, 120)
            assert done.returncode == 0, done.stderr
            known[processes] = json.loads(done.stdout)["weights_sha256"]
        return known[processes]

    return run


def resumed(run: Run, *arguments: str) -> dict[str, Any]:
    """The result of the run when it is continued."""
    done = run(*RUN, "--resume", "auto", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    assert "continuing from" in done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_a_signal_stops_the_run_after_a_checkpoint_and_nothing_is_lost(
    live: Callable[..., Live],
    run: Run,
    expected: Callable[[int], str],
    number: int,
    code: int,
    name: str,
    tmp_path: Path,
) -> None:
    one = live(*RUN)
    one.wait_for_epoch(2)
    one.process.send_signal(number)
    found, said = one.end(10)
    assert found == code, said
    assert f"stopped by {name}" in said
    assert "--resume auto" in said
    assert "Traceback" not in said
    assert not (tmp_path / "mnist_cnn_model.pth").exists()
    assert resumed(run)["weights_sha256"] == expected(1)


def test_a_second_ctrl_c_ends_the_run_at_once(live: Callable[..., Live]) -> None:
    """The first one cannot be answered: the process is stuck in a save to a disk that hangs."""
    program = (
        "import sys, time; from mnist_accel import cli; from mnist_accel.files.checkpoint import CheckpointFolder\n"
        "def hang(*_):\n    print('hanging', file=sys.stderr, flush=True)\n    time.sleep(100)\n"
        "CheckpointFolder.save = hang\n"
        f"sys.argv = ['mnist-accel', *{RUN!r}]\n"
        "cli.main()"
    )
    one = live("ignored", launcher=("-c", program))
    one.wait_for(lambda: "hanging" in one.log.read_text())
    one.process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert one.process.poll() is None
    began = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    assert one.end(5)[0] == 130
    assert time.monotonic() - began < 1


def test_ctrl_c_before_training_ends_the_run_at_once(live: Callable[..., Live]) -> None:
    program = (
        "import sys, time; from mnist_accel import cli; from mnist_accel.data import datasets\n"
        "def slow(*_, **__):\n    print('loading', file=sys.stderr, flush=True)\n    time.sleep(100)\n"
        "datasets.load = slow\n"
        f"sys.argv = ['mnist-accel', *{RUN!r}]\n"
        "cli.main()"
    )
    one = live("ignored", launcher=("-c", program))
    one.wait_for(lambda: "loading" in one.log.read_text())
    one.process.send_signal(signal.SIGINT)
    code, said = one.end(5)
    assert code == 130
    assert "Traceback" not in said


@TWO
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_to_the_launcher_stops_all_processes_together(
    live: Callable[..., Live], run: Run, expected: Callable[[int], str], number: int, code: int
) -> None:
    one = live(*RUN, "--processes", "2")
    one.wait_for_epoch(2)
    workers = one.workers()
    assert len(workers) == 2
    one.process.send_signal(number)
    found, said = one.end(20)
    assert found == code, said
    assert said.count("a checkpoint was saved") == 1
    assert not any(worker.is_running() for worker in workers)
    assert resumed(run, "--processes", "2")["weights_sha256"] == expected(2)


@TWO
def test_a_signal_to_one_rank_stops_all_within_8_steps(live: Callable[..., Live]) -> None:
    one = live(*RUN, "--processes", "2")
    one.wait_for_epoch(2)
    one.workers()[1].send_signal(signal.SIGTERM)
    code, said = one.end(20)
    assert code == 143, said
    assert said.count("stopped by SIGTERM") == 1


@TWO
@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_rank_is_started_again_and_the_result_is_the_same(
    live: Callable[..., Live], expected: Callable[[int], str], rank: int, tmp_path: Path
) -> None:
    one = live(*RUN, "--processes", "2", "--max-restarts", "2")
    one.wait_for_epoch(3)
    other = one.workers()[1 - rank]
    one.workers()[rank].kill()
    killed = time.monotonic()
    other.wait(10)
    assert time.monotonic() - killed < 10
    code, said = one.end(90)
    assert code == 0, said
    assert "starting again (1 of 2)" in said
    assert json.loads((tmp_path / "mnist_cnn_model.json").read_text())["weights_sha256"] == expected(2)


@TWO
def test_torchrun_restarts_continue_and_the_result_is_the_same(
    live: Callable[..., Live], expected: Callable[[int], str], tmp_path: Path
) -> None:
    launcher = (*torchrun(2), "--max-restarts", "3")
    one = live(*RUN, "--resume", "auto", launcher=launcher)
    one.wait_for_epoch(3)
    one.workers()[1].kill()
    code, said = one.end(120)
    assert code == 0, said
    assert "continuing from" in said
    assert json.loads((tmp_path / "mnist_cnn_model.json").read_text())["weights_sha256"] == expected(2)


@TWO
def test_a_refusal_is_not_started_again(run: Run) -> None:
    done = run(*RUN, "--processes", "2", "--max-restarts", "3", "--validation-samples", "99999")
    assert done.returncode == 2
    assert "starting again" not in done.stderr


@TWO
def test_a_stopped_rank_is_given_up_after_the_timeout(live: Callable[..., Live]) -> None:
    one = live(*RUN, "--processes", "2", "--timeout", "3")
    one.wait_for_epoch(2)
    stopped, other = one.workers()[1], one.workers()[0]
    stopped.suspend()
    began = time.monotonic()
    other.wait(20)
    assert time.monotonic() - began < 3 + 10
    code, said = one.end(5)
    assert code == 75
    assert re.search(
        rf"rank 1 on {socket.gethostname()} has ended, is frozen .* in epoch \d, after step \d+ of 16", said
    )
    assert "Traceback" not in said
    assert not stopped.is_running()


def test_sigusr1_prints_the_position_of_the_run(live: Callable[..., Live]) -> None:
    one = live(*RUN)
    one.wait_for_epoch(1)
    one.process.send_signal(signal.SIGUSR1)
    one.wait_for(lambda: bool(re.search(r"the run is in epoch \d, after step \d+ of 16", one.log.read_text())))


def test_the_log_of_a_running_run_names_its_last_checkpoint(live: Callable[..., Live], tmp_path: Path) -> None:
    one = live(*RUN)
    one.wait_for_epoch(2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.partial.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "epoch" in line][:2] == [1, 2]
    checkpoint = [line for line in lines if "checkpoint" in line][-1]
    assert checkpoint["steps"] % 5 == 0
    assert checkpoint["time"].endswith("+00:00")


@TWO
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_workers_of_a_dead_launcher_save_and_leave(
    live: Callable[..., Live], run: Run, expected: Callable[[int], str], number: int
) -> None:
    one = live(*RUN, launcher=torchrun(2))
    one.wait_for_epoch(2)
    workers = one.workers()
    assert len(workers) == 2
    one.process.send_signal(number)
    psutil.wait_procs(workers, timeout=15)
    assert not any(worker.is_running() for worker in workers)
    assert resumed(run, "--processes", "2")["weights_sha256"] == expected(2)


def test_the_child_of_a_terminated_accelerate_launch_saves_and_leaves(
    live: Callable[..., Live], run: Run, expected: Callable[[int], str]
) -> None:
    one = live(*RUN, launcher=("-m", "accelerate.commands.launch"))
    one.wait_for_epoch(2)
    workers = one.workers()
    assert len(workers) == 1
    one.process.terminate()
    one.process.wait(10)
    psutil.wait_procs(workers, timeout=15)
    assert not workers[0].is_running()
    assert "stopped by SIGTERM" in one.log.read_text()
    assert resumed(run)["weights_sha256"] == expected(1)


@TWO
def test_another_number_of_processes_continues_with_the_same_samples(
    live: Callable[..., Live], run: Run, tmp_path: Path
) -> None:
    """In float64 without dropout: the same losses, from a checkpoint in the middle of an epoch."""
    (tmp_path / "exact.toml").write_text(
        'dtype = "float64"\ndropout = 0.0\nbatch_size = 37\ntrain_samples = 300\nepochs = 2\n'
    )
    arguments = ("train", "--recipe", "exact.toml", "--dataset", SMALL_MNIST, "--cpu", "--threads", "1", "--json")
    whole = json.loads(run(*arguments, "--output-dir", "whole").stdout)
    for before, after in ((2, 1), (1, 2)):
        name = f"from-{before}"
        cut = (*arguments, "--output-dir", name, "--checkpoint-every", "3")
        one = live(*cut, "--processes", str(before))
        one.wait_for(lambda name=name: (tmp_path / name / "checkpoints" / "checkpoint-000002.safetensors").exists())  # type: ignore[misc]
        for process in one.workers() or [one.process]:
            process.kill()
        one.end()
        done = run(*cut, "--processes", after, "--resume", "auto")
        assert done.returncode == 0, done.stderr
        assert f"world_size was {before}, is {after}" in done.stderr
        result = json.loads(done.stdout)
        for key in ("train_loss", "test_loss"):
            assert result[key] == pytest.approx(whole[key], rel=1e-12)
        assert result["train_accuracy"] == whole["train_accuracy"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MB: room for one checkpoint, not for two."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a disk of its own needs root: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_a_clear_error_and_the_earlier_checkpoint_is_whole(run: Run, tiny_disk: Path) -> None:
    done = run(*RUN, "--output-dir", tiny_disk)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(lines) == 1
    assert re.search(r"cannot write a checkpoint in .*No space left.*--resume auto", lines[0])
    names = [path.name for path in (tiny_disk / "checkpoints").iterdir()]
    assert names == ["checkpoint-000001.safetensors"]
    done = run(*RUN, "--output-dir", "elsewhere", "--resume", tiny_disk, "--json")
    assert done.returncode == 0, done.stderr
