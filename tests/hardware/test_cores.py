import os
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_accel.hardware import cores
from tests.conftest import clean_environment


def test_the_quota_of_a_group_is_that_of_its_tightest_parent(tmp_path: Path) -> None:
    group = tmp_path / "user" / "job"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    (group.parent / "cpu.max").write_text("150000 100000\n")
    membership = tmp_path / "cgroup"
    membership.write_text("0::/user/job\n")
    assert cores.cgroup_quota(tmp_path, membership) == 1.5


def test_no_limit_and_no_cgroups_are_infinite(tmp_path: Path) -> None:
    assert cores.cgroup_quota(tmp_path, tmp_path / "missing") == float("inf")
    (tmp_path / "cgroup").write_text("0::/\n")
    assert cores.cgroup_quota(tmp_path, tmp_path / "cgroup") == float("inf")


def test_a_quota_cuts_the_cores_but_leaves_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quota, expected in ((float("inf"), 8), (2.5, 2), (0.5, 1)):
        monkeypatch.setattr(cores, "cgroup_quota", lambda quota=quota: quota)
        assert cores.available_cores() == expected


@pytest.mark.parametrize(
    ("running", "variables", "expected"),
    [
        (3, {}, "30000"),
        (2, {}, None),
        (3, {"GOMP_SPINCOUNT": "7"}, "7"),
        (3, {"OMP_WAIT_POLICY": "ACTIVE"}, None),
    ],
)
def test_threads_wait_for_a_shorter_time_where_other_programs_use_all_cores_unless_the_user_says_how_long(
    running: int, variables: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "loadavg").write_text(f"0.20 0.18 0.12 {running}/80 11206\n")
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    monkeypatch.setattr("os.environ", dict(variables))
    cores.shorten_waiting_if_busy(tmp_path / "loadavg")
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.skipif(sys.platform != "linux", reason="torch uses GNU OpenMP on Linux")
def test_beside_busy_programs_torch_and_doctor_know_that_threads_wait_for_a_shorter_time() -> None:
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("OMP_")}
    environment |= {"OMP_DISPLAY_ENV": "verbose"}  # then GNU OpenMP prints what it uses
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * cores.available_cores())]
    try:
        command = [sys.executable, "-m", "mnist_accel", "doctor"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert "GOMP_SPINCOUNT = '30000'" in done.stderr
    assert "GOMP_SPINCOUNT=30000" in done.stdout + done.stderr
