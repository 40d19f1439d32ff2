from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mnist_accel.errors import UserError
from mnist_accel.hardware import accelerator, cores, launch

CRASHED = 70


def crash(folder: Path, saves: Sequence[str], commands: list[list[str]]) -> Callable[[int, Sequence[str]], int]:
    """Stands in for the processes: writes down its arguments, saves the next checkpoint, and crashes."""

    def run_once(_: int, arguments: Sequence[str]) -> int:
        commands.append(list(arguments))
        if name := saves[len(commands) - 1]:
            (folder / "checkpoints" / name).mkdir(parents=True)
        return CRASHED

    return run_once


def test_a_restart_continues_only_from_checkpoints_that_this_run_has_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints" / "checkpoint-000004.safetensors").mkdir(parents=True)  # of another run
    commands: list[list[str]] = []
    monkeypatch.setattr(launch, "_run_once", crash(tmp_path, ["", "checkpoint-000005.safetensors", ""], commands))
    code = launch.run_processes(1, ["train"], on_cpu=True, output_dir=tmp_path, restarts=2)
    assert code == CRASHED
    assert commands == [["train"], ["train"], ["train", "--resume", "auto"]]


@pytest.mark.parametrize(("gpus", "on_cpu", "limit"), [(0, False, "1 core"), (2, True, "1 core"), (1, False, "1 GPU")])
def test_more_processes_than_cores_or_gpus_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: int, on_cpu: bool, limit: str
) -> None:
    monkeypatch.setattr(accelerator, "gpu_count", lambda: gpus)
    monkeypatch.setattr(cores, "available_cores", lambda: 1)
    with pytest.raises(UserError, match=f"--processes 2: this machine has {limit}"):
        launch.run_processes(2, ["train"], on_cpu=on_cpu, output_dir=tmp_path, restarts=0)


def test_two_gpus_need_no_second_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accelerator, "gpu_count", lambda: 2)
    monkeypatch.setattr(cores, "available_cores", lambda: 1)
    monkeypatch.setattr(launch, "_run_once", lambda *_: 0)
    assert launch.run_processes(2, ["train"], on_cpu=False, output_dir=tmp_path, restarts=0) == 0
