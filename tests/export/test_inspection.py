import json
import os
import sys
from pathlib import Path

import pytest

from mnist_accel.errors import UserError, WeightsError
from mnist_accel.export.inspection import inspect
from mnist_accel.files import run_record as runlog
from mnist_accel.files import weights
from mnist_accel.files.checkpoint import CheckpointFolder
from mnist_accel.files.exported import FORMATS
from mnist_accel.models import architectures as models
from tests.conftest import Run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Weights with a record."""
    content = weights.serialise(models.build("cnn"))
    dataset = {"name": "mnist", "class_names": list("0123456789"), "train_samples": 4000}
    record = {"model": "cnn", "dataset": dataset, "recipe": "classic", "metrics": {"test_accuracy": 0.5}}
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    path.with_suffix(".json").write_bytes(runlog.record_bytes(record | {"weights_sha256": weights.sha256(content)}))
    return path


def test_weights_are_described_with_their_record(path: Path) -> None:
    found = inspect(path)
    assert (found["format"], found["parameters"], found["classes"]) == ("pth", 594_922, list("0123456789"))
    assert found["sha256"] == weights.sha256(path.read_bytes())
    assert found["metadata"]["model"] == "cnn"
    assert found["metadata"]["dataset"]["train_samples"] == 4000


def test_weights_without_a_record_are_described(path: Path) -> None:
    path.with_suffix(".json").unlink()
    found = inspect(path)
    assert (found["parameters"], found["metadata"]) == (594_922, {})


def test_a_record_in_place_of_the_weights_is_no_weights_file(path: Path) -> None:
    with pytest.raises(WeightsError, match=r"some\.json: damaged, cut short, or not of torch\.save"):
        inspect(path.with_suffix(".json"))


def test_checkpoints_are_found_in_their_folders(tmp_path: Path) -> None:
    state = {"epoch": 2, "step": 7, "identity": {"model": "cnn", "lr": 0.1}}
    folder = tmp_path / "checkpoints"
    for _ in range(2):
        CheckpointFolder(folder, keep=2).save(models.build("cnn").state_dict(), json.dumps(state).encode())
    for given in (tmp_path, folder, folder / "checkpoint-000002.safetensors"):
        found = inspect(given)
        assert found["format"] == "checkpoint"
        assert found["path"].endswith("checkpoint-000002.safetensors")
        assert found["metadata"] == state
        assert found["parameters"] == 594_922
    (folder / "checkpoint-000002.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="is damaged"):
        inspect(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="without checkpoints"):
        inspect(tmp_path / "empty")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    for suffix in (".pth", *(kind.suffix for kind in FORMATS.values())):
        path = tmp_path / f"bad{suffix}"
        path.write_bytes(b"rubbish")
        with pytest.raises(WeightsError):
            inspect(path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs")
def test_special_and_oversized_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with (tmp_path / "sparse.safetensors").open("wb") as file:
        file.truncate(8 * 10**9)
    for path in (tmp_path / "pipe.pth", tmp_path / "sparse.safetensors", Path("/dev/zero")):
        with pytest.raises(WeightsError, match="cannot read"):
            inspect(path)


def test_the_page_goes_to_stdout_and_json_holds_typed_values(run: Run, path: Path) -> None:
    done = run("inspect", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "594,922" in done.stdout
    assert "test_accuracy 0.5" in done.stdout
    found = json.loads(run("inspect", path, "--json").stdout)
    assert found["metadata"]["metrics"] == {"test_accuracy": 0.5}
    assert (found["parameters"], found["classes"]) == (594_922, list("0123456789"))


def test_a_record_of_other_weights_is_an_error(run: Run, path: Path) -> None:
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(record | {"weights_sha256": "0" * 64}))
    done = run("inspect", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "SHA-256 differs" in done.stderr
