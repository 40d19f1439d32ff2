"""Short runs of the scripts that measure the figures in docs/."""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts import recorded_disk
from tests.conftest import clean_environment

SCRIPTS = Path(__file__).parents[2] / "scripts"
LIBRARIES = (
    *("evidence.py", "faults.py", "fuzz_formats.py", "generated_docs.py"),
    *("picture_scenes.py", "recorded_disk.py"),
)


def run(name: str, *arguments: str) -> dict[str, Any]:
    """The JSON object in the last line of a script's output."""
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=290, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("name", sorted(path.name for path in SCRIPTS.glob("[!_]*.py") if path.name not in LIBRARIES))
def test_help_is_printed_and_nothing_is_started(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(SCRIPTS / name), "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
    assert capsys.readouterr().out.strip().lower().startswith(f"usage: {name}")
    assert not list(tmp_path.iterdir())


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")


@LINUX
@pytest.mark.slow  # tests/training/test_signals.py kills single runs
def test_runs_killed_at_random_instants_end_with_the_same_weights() -> None:
    found = run("kill_harness.py", "--kills", "2", "--processes", "1", "2", "--precisions", "no")
    assert found["same_weights"] == 2
    assert found["longest_left_seconds"] < 10


@LINUX
def test_damaged_files_of_all_kinds_are_refused_or_read() -> None:
    found = run("fuzz.py", "--inputs", "100")
    assert found["inputs"] == 100
    assert found["failures"] == 0
    assert found["peak_memory_mb"][0] < 500


@pytest.mark.slow  # tests/training/test_signals.py restarts one launcher, and resumes on other numbers of processes
def test_a_run_goes_on_with_the_same_losses_when_hosts_come_and_go() -> None:
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    assert run("elastic_hosts.py", "--scenarios", "1")["same_losses"] == 1


def test_after_a_power_cut_the_newest_checkpoint_is_found() -> None:
    if not recorded_disk.is_possible():
        pytest.skip("a recorded disk needs root, /dev/fuse and loop devices")
    found = run("power_cut.py", "--file-systems", "ext4", "--every", "20")
    assert found["cuts"] > 20
    assert found["problems"] == {}


@pytest.mark.slow  # it also needs a quiet machine
def test_the_input_pipeline_keeps_up_with_any_network() -> None:
    assert run("benchmark_input.py")["images_per_second"]["highest"] >= 500_000
