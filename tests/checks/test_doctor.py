from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from packaging.version import Version

from mnist_accel.checks import doctor
from tests.conftest import Run


def warnings(monkeypatch: pytest.MonkeyPatch, folder: Path, **environment: str) -> list[str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return doctor.examine(folder).warnings


def test_a_sound_machine_has_no_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert warnings(monkeypatch, tmp_path) == []


def test_the_facts_are_there(run: Run) -> None:
    done = run("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["facts"]
    for name in ("system", "packages", "cpu", "accelerators", "precision", "threads", "launcher variables"):
        assert facts[name] in done.stderr


def test_fp16_on_a_cpu_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mnist_accel.hardware.accelerator.gpu_count", lambda: 0)
    assert any("fp16" in text for text in warnings(monkeypatch, tmp_path, ACCELERATE_MIXED_PRECISION="fp16"))


def test_too_many_threads_are_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert any("OMP_NUM_THREADS=999" in text for text in warnings(monkeypatch, tmp_path, OMP_NUM_THREADS="999"))


def test_more_processes_than_will_run_are_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from accelerate.commands.config import config_args

    file = tmp_path / "default_config.yaml"
    file.write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 4\nuse_cpu: true\n")
    monkeypatch.setattr(config_args, "default_config_file", str(file))
    monkeypatch.setattr("mnist_accel.hardware.accelerator.gpu_count", lambda: 0)
    found = warnings(monkeypatch, tmp_path)
    assert any("4 processes" in text and "--processes 4" in text for text in found)


def test_damaged_data_are_warned_of(monkeypatch: pytest.MonkeyPatch, real_mnist: Path, tmp_path: Path) -> None:
    shutil.copytree(real_mnist / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert any(str(path) in text and "damaged" in text for text in warnings(monkeypatch, tmp_path))


def test_an_old_torch_and_a_torchvision_that_does_not_fit_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("torch.__version__", "2.4.0")
    found = warnings(monkeypatch, tmp_path)
    assert any("torch 2.4.0 is older" in text for text in found)
    assert any("torchvision" in text and "install both" in text for text in found)


def test_a_torchvision_that_cannot_be_imported_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("importlib.import_module", fail)
    assert any("nms does not exist" in text for text in doctor.torchvision_problems(Version("2.15.0")))
