import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from mnist_accel import EvaluateConfig, TrainConfig, UserError, evaluate, train
from mnist_accel.cli import main
from mnist_accel.errors import DataError, WeightsError
from mnist_accel.training.evaluate import data_folder
from tests.conftest import small_mnist

pytestmark = pytest.mark.usefixtures("blank_pictures")
SMALL_MNIST = small_mnist()
SMALL = {"dataset": SMALL_MNIST, "train_samples": 500, "epochs": 2, "cpu": True}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(TrainConfig(output_dir=folder, mixed_precision="no", **SMALL))  # type: ignore[arg-type]
    return folder


@pytest.fixture
def weights(trained: Path, tmp_path: Path) -> Path:
    for name in ("mnist_cnn_model.pth", "mnist_cnn_model.json"):
        shutil.copy(trained / name, tmp_path)
    return tmp_path / "mnist_cnn_model.pth"


def config(weights: Path, **settings: object) -> EvaluateConfig:
    values = {"weights": weights, "output_dir": weights.parent / "out", "cpu": True, "mixed_precision": "no"} | settings
    return EvaluateConfig(**values)  # type: ignore[arg-type]


def test_saved_weights_evaluate_to_what_training_reported(weights: Path) -> None:
    result = evaluate(config(weights))
    metrics = json.loads(weights.with_suffix(".json").read_text())["metrics"]
    assert (result.dataset, result.samples) == (SMALL_MNIST, 1000)
    assert result.accuracy == metrics["test_accuracy"] == result.correct / 1000
    assert result.loss == pytest.approx(metrics["test_loss"], rel=1e-5)
    assert sum(map(sum, result.confusion_matrix)) == 1000
    assert sum(result.confusion_matrix[i][i] for i in range(10)) == result.correct
    assert sum(row["samples"] for row in result.per_class) == 1000
    low, high = result.accuracy_ci95
    assert 0 < low < result.accuracy < high < 1
    assert {path.name for path in (weights.parent / "out").iterdir()} == {"confusion_matrix.png", "mistakes.png"}


@pytest.mark.parametrize("batch_size", [7, 999, 1000, 5000])
def test_every_sample_counts_once_at_any_batch_size(weights: Path, batch_size: int) -> None:
    expected = evaluate(config(weights)).correct
    result = evaluate(config(weights, batch_size=batch_size))
    assert (result.samples, result.correct) == (1000, expected)


def test_weights_alone_need_a_data_set_by_name(weights: Path) -> None:
    weights.with_suffix(".json").unlink()
    with pytest.raises(UserError, match="give --dataset"):
        evaluate(config(weights))
    assert evaluate(config(weights, dataset=SMALL_MNIST)).samples == 1000


def test_weights_that_the_record_does_not_describe_are_refused(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(WeightsError, match="SHA-256 differs"):
        evaluate(config(weights))


def test_a_path_is_enough_from_python(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(weights.parent)
    assert evaluate(weights).samples == evaluate(str(weights)).samples == 1000


def test_ten_letters_are_not_evaluated_as_ten_digits(weights: Path) -> None:
    path = weights.with_suffix(".json")
    record = json.loads(path.read_text())
    record["dataset"] |= {"name": "folder:letters", "class_names": list("ABCDEFGHIJ")}
    path.write_text(json.dumps(record))
    with pytest.raises(WeightsError, match=r"A, B, C.*mnist has 10 classes \(0, 1, 2"):
        evaluate(config(weights, dataset="mnist"))


def test_the_data_folder_of_the_training_is_used_unless_another_is_named(weights: Path) -> None:
    path = weights.with_suffix(".json")
    record = json.loads(path.read_text())
    record["config"]["data_dir"] = str(weights.parent)
    path.write_text(json.dumps(record))
    assert data_folder(config(weights), record["config"]) == weights.parent
    assert data_folder(config(weights, data_dir="elsewhere"), record["config"]) == Path("elsewhere")
    before = sorted(weights.parent.iterdir())
    evaluate(config(weights))
    assert sorted(weights.parent.iterdir()) == sorted([*before, weights.parent / "out"])


RECORD = '{"format_version": 1, "model": "cnn", "dataset": {"name": "mnist", "class_names": %s}, "weights_sha256": ""}'


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "not a record.*Invalid JSON"),
        ("[" * 100_000, "not a record.*Invalid JSON"),
        ("[]", "not a record"),
        (RECORD.replace(": 1", ": 99") % "[]", "format_version: "),
        ('{"format_version": 1}', "model: Field required"),
        ('{"format_version": 1, "model": "cnn", "dataset": {}, "weights_sha256": ""}', "dataset.name: Field required"),
        (RECORD % '["\\u0000"]', "not a short, printable text"),
        (RECORD[:-1] % "[]" + ', "extra": NaN}', "not JSON compliant"),
        (RECORD[:-1] % "[]" + ', "metrics": 5}', "metrics: Input should be an object"),
        (RECORD % '["\\ud800"]', "Invalid JSON"),
        (RECORD % json.dumps(["a" * 400]), "not a short, printable text"),
    ],
)
def test_a_damaged_record_is_named(weights: Path, content: str, expected: str) -> None:
    weights.with_suffix(".json").write_text(content)
    with pytest.raises(WeightsError, match=expected):
        evaluate(config(weights))


@pytest.mark.parametrize("kind", ["fifo", "device", "sparse file", "folder"])
def test_a_special_or_huge_file_in_place_of_the_record_is_refused_at_once(weights: Path, kind: str) -> None:
    path = weights.with_suffix(".json")
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.touch()
        os.truncate(path, 8 * 2**30)
    with pytest.raises(WeightsError, match="not a record of this version"):
        evaluate(config(weights))


@pytest.mark.parametrize("form", ["idx", "folder", "csv"])
def test_a_data_set_in_the_record_with_a_name_too_long_for_a_file_is_refused(weights: Path, form: str) -> None:
    path = weights.with_suffix(".json")
    record = json.loads(path.read_text())
    record["dataset"]["name"] = f"{form}:{'x' * 290}"
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=f"{form}:xxx"):
        evaluate(config(weights))


def test_results_go_to_stdout(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--weights", str(weights), "--output-dir", str(weights.parent / "out"), "--cpu"]
    monkeypatch.setattr(sys, "argv", ["mnist-accel", "evaluate", *arguments])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr()
    assert "of 1,000 images correct" in said.out
    assert "Confusion matrix" in said.out
    assert "mistakes.png" in said.out
    assert said.err == ""


def test_prefixed_weights_evaluate_the_same(weights: Path) -> None:
    expected = evaluate(config(weights)).correct
    state = torch.load(weights, weights_only=True)
    other = weights.with_name("wrapped.pth")
    torch.save({f"module._orig_mod.{name}": tensor for name, tensor in state.items()}, other)
    assert evaluate(config(other, dataset=SMALL_MNIST)).correct == expected


def test_weights_that_are_not_numbers_are_refused(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    state["classifier.4.bias"][0] = float("nan")
    other = weights.with_name("nan.pth")
    torch.save(state, other)
    with pytest.raises(WeightsError, match="infinite"):
        evaluate(config(other, dataset=SMALL_MNIST))
