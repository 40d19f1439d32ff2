import json
import os
import shutil
from pathlib import Path

import pytest

from mnist_accel.checks import doctor
from tests.conftest import Run


def warnings(monkeypatch: pytest.MonkeyPatch, folder: Path, **environment: str) -> list[str]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return doctor.examine(folder).warnings


def test_a_sound_machine_has_no_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert warnings(monkeypatch, tmp_path) == []


def test_json_holds_the_facts_that_people_read(run: Run) -> None:
    done = run("doctor", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["facts"]
    for name in ("system", "packages", "cpu", "accelerators", "precision", "threads", "launcher variables"):
        assert facts[name] in done.stderr


def test_fp16_on_a_cpu_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mnist_accel.checks.doctor.gpu_count", lambda: 0)
    assert any("fp16" in text for text in warnings(monkeypatch, tmp_path, ACCELERATE_MIXED_PRECISION="fp16"))


def test_too_many_threads_are_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert any("OMP_NUM_THREADS=999" in text for text in warnings(monkeypatch, tmp_path, OMP_NUM_THREADS="999"))


def test_the_use_of_the_cpu_by_other_programs_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda **_: 95.0)
    assert doctor.examine(tmp_path).facts["other programs"] == "use 95% of the CPU"


def accelerate_asks_for(monkeypatch: pytest.MonkeyPatch, folder: Path, gpus: int, **settings: object) -> list[str]:
    """The doctor's warnings with this Accelerate configuration on a machine with so many GPUs."""
    from accelerate.commands.config import config_args

    file = folder / "default_config.yaml"
    values = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "NO", "use_cpu": False} | settings
    file.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in values.items()))
    monkeypatch.setattr(config_args, "default_config_file", str(file))
    monkeypatch.setattr("mnist_accel.checks.doctor.gpu_count", lambda: gpus)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("mnist_accel.checks.doctor.choose_precision", lambda *_: ("bf16", "for this test"))
    return warnings(monkeypatch, folder)


def test_more_processes_than_will_run_are_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = accelerate_asks_for(monkeypatch, tmp_path, gpus=0, num_processes=4, use_cpu=True)
    assert any("4 processes" in text and "--processes 4" in text for text in found)


def test_two_processes_on_one_gpu_are_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = accelerate_asks_for(monkeypatch, tmp_path, gpus=1, num_processes=2)
    assert any("2 processes" in text and "1 GPU;" in text for text in found)


@pytest.mark.parametrize(("processes", "expected"), [(16, 0), (18, 1)])
def test_processes_are_counted_per_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processes: int, expected: int
) -> None:
    found = accelerate_asks_for(monkeypatch, tmp_path, gpus=8, num_processes=processes, num_machines=2)
    assert len(found) == expected


def test_a_read_only_folder_is_warned_of_and_the_precision_is_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    monkeypatch.chdir(folder)
    allowed = os.access

    def access(path: str | Path, mode: int) -> bool:  # root may write everywhere
        return Path(path).absolute() != folder and allowed(path, mode)

    monkeypatch.setattr("os.access", access)
    findings = doctor.examine(tmp_path)
    assert findings.facts["precision"].startswith(("fp32", "bf16"))
    assert [text for text in findings.warnings if str(folder) in text and "--output-dir" in text]


def test_a_mistyped_data_folder_is_warned_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = warnings(monkeypatch, tmp_path / "dtaa")
    assert [text for text in found if "dtaa: no such folder" in text]
    monkeypatch.chdir(tmp_path)
    assert warnings(monkeypatch, Path("data")) == []  # the default need not exist


def test_results_are_on_stdout(run: Run) -> None:
    done = run("doctor")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "No problems found."
    assert "No problems found." not in done.stderr


def test_damaged_data_are_warned_of(monkeypatch: pytest.MonkeyPatch, data_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(data_dir / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    assert any(str(path) in text and "damaged" in text for text in warnings(monkeypatch, tmp_path))
