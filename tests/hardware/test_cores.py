from pathlib import Path

import pytest

from mnist_accel.hardware import cores


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
