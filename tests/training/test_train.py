import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mnist_accel import TrainConfig, train
from mnist_accel.api import TRAIN_FILES
from mnist_accel.errors import OutputError
from mnist_accel.reports import plots
from mnist_accel.training.events import EpochRecord, Observer, RunFacts
from mnist_accel.training.setup import Setup
from tests.conftest import small_mnist

SMALL_MNIST = small_mnist(test=200)
pytestmark = pytest.mark.usefixtures("blank_pictures")


def small(folder: Path, **settings: object) -> TrainConfig:
    values = {"dataset": SMALL_MNIST, "train_samples": 500, "epochs": 2, "cpu": True, "output_dir": folder} | settings
    return TrainConfig(**values)  # type: ignore[arg-type]


def test_a_run_leaves_a_whole_and_consistent_set_of_files(tmp_path: Path) -> None:
    result = train(small(tmp_path / "deep" / "er"))
    folder = Path(result.output_dir)
    assert {path.name for path in folder.iterdir()} == set(TRAIN_FILES)
    weights = (folder / "mnist_cnn_model.pth").read_bytes()
    record = json.loads((folder / "mnist_cnn_model.json").read_text())
    assert hashlib.sha256(weights).hexdigest() == result.weights_sha256 == record["weights_sha256"]
    assert record["format_version"] == 1
    assert (record["model"], record["dataset"]["name"], record["config"]["epochs"]) == ("cnn", SMALL_MNIST, 2)
    assert record["dataset"]["checksums"]["train-images-idx3-ubyte"].startswith("sha256:")
    assert {"torch", "accelerate", "mnist-accel"} <= record["versions"].keys()
    assert record["metrics"]["test_accuracy"] == result.test_accuracy
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert list(lines[0]) == [
        "epoch",
        "train_loss",
        "train_accuracy",
        "test_loss",
        "test_accuracy",
        "lr",
        "images_per_second",
        "train_seconds",
    ]
    assert lines[-1]["test_accuracy"] == result.test_accuracy
    assert result.train_seconds == pytest.approx(sum(line["train_seconds"] for line in lines))
    assert result.train_seconds < result.wall_seconds
    for picture in ("training_history.png", "predictions.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first = train(small(tmp_path)).weights_sha256
    assert train(small(tmp_path)).weights_sha256 == first
    assert train(small(tmp_path, seed=1)).weights_sha256 != first


def test_a_failed_run_leaves_the_files_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(small(tmp_path, epochs=1))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def fail(*_: object) -> bytes:
        raise OutputError("no room")

    monkeypatch.setattr("mnist_accel.files.weights.serialise", fail)
    with pytest.raises(OutputError, match="no room"):
        train(small(tmp_path, epochs=1, seed=9))
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {name: after[name] for name in before} == before


def test_pictures_that_cannot_be_drawn_are_a_notice_and_the_weights_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small(tmp_path, epochs=1))

    def fail(*_: object) -> bytes:
        raise ValueError("no ink")

    monkeypatch.setattr(plots, "sample_predictions", fail)
    recorder = Recorder()
    result = train(small(tmp_path, epochs=1, seed=9), recorder)
    assert any("no ink" in text for text in recorder.notices)
    weights = (tmp_path / "mnist_cnn_model.pth").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == result.weights_sha256
    assert not (tmp_path / "predictions.png").exists(), "a picture of the earlier run must not stay beside new weights"


def test_an_accuracy_no_better_than_guessing_gives_a_notice(tmp_path: Path) -> None:
    recorder = Recorder()
    train(small(tmp_path, lr=3.0, epochs=1), recorder)
    assert any("no better than guessing" in text for text in recorder.notices)


def test_accumulation_gives_the_same_curve(tmp_path: Path) -> None:
    exact = {"dtype": "float64", "dropout": 0.0, "batch_size": 64, "train_samples": 150, "epochs": 1, "threads": 1}
    whole = train(small(tmp_path, **exact))
    parts = train(small(tmp_path, gradient_accumulation_steps=3, **exact))
    assert parts.train_loss == pytest.approx(whole.train_loss, rel=1e-12)
    assert parts.test_loss == pytest.approx(whole.test_loss, rel=1e-12)


def test_a_data_set_with_fewer_samples_than_asked_for_is_used_whole(tmp_path: Path) -> None:
    recorder = Recorder()
    train(small(tmp_path, train_samples=48_000, epochs=1), recorder)
    assert recorder.facts is not None
    assert recorder.facts.train_samples == 4000


def test_the_python_api_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train(small(tmp_path, epochs=1))
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


class Recorder(Observer):
    """Notes what a run reports."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.records: list[EpochRecord] = []
        self.facts: RunFacts | None = None
        self.notices: list[str] = []
        self.running_loss = 0.0

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def run_started(self, facts: RunFacts) -> None:
        self.facts = facts
        self.events.append("run")

    def epoch_started(self, epoch: int, step: int) -> None:
        self.events.append(f"epoch {epoch} from {step}")

    def step_finished(self, step: int, sums: torch.Tensor) -> None:
        self.events.append(f"step {step}")
        self.running_loss = float(sums[0].sum()) / 300

    def epoch_finished(self, record: EpochRecord, step_losses: object) -> None:
        self.events.append(f"epoch {record.epoch} done")
        self.records.append(record)


def test_an_observer_hears_the_whole_run_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    result = train(small(tmp_path, train_samples=300, epochs=2), recorder)
    steps = ["step 0", "step 1", "step 2"]
    assert recorder.events == [
        *("run", "epoch 0 from 0", *steps, "epoch 1 done"),
        *("epoch 1 from 0", *steps, "epoch 2 done"),
    ]
    assert result.steps == 6
    assert tuple(recorder.records) == result.history
    assert recorder.running_loss == pytest.approx(result.train_loss)
    assert recorder.facts
    assert (recorder.facts.parameters, recorder.facts.train_samples, recorder.facts.steps_per_epoch) == (594922, 300, 3)


def test_train_mode_is_back_after_each_evaluation(tmp_path: Path) -> None:
    seen = []

    class Spy(Observer):
        def run_prepared(self, setup: Setup) -> None:
            setup.module.register_forward_hook(lambda module, *_: seen.append(module.training))

    train(small(tmp_path, train_samples=128), Spy())
    assert seen == [True, False, True, False]  # a step and an evaluation in each epoch


def test_4000_digits_reach_95_percent_in_three_epochs_of_the_default_recipe(tmp_path: Path) -> None:
    assert train(TrainConfig(dataset=SMALL_MNIST, epochs=3, cpu=True, output_dir=tmp_path)).test_accuracy >= 0.95


def test_compiled_training_learns_the_same(tmp_path: Path) -> None:
    settings = {"mixed_precision": "no", "model": "small-cnn", "dropout": 0.0, "epochs": 1}
    plain = train(small(tmp_path, **settings))
    compiled = train(small(tmp_path, **settings, compile=True))
    assert compiled.train_loss == pytest.approx(plain.train_loss, rel=0.01)
    state = torch.load(tmp_path / "mnist_cnn_model.pth", weights_only=True)
    assert not any("_orig_mod" in name for name in state)


def test_training_does_not_wait_for_parts_of_torch_that_it_does_not_use(tmp_path: Path) -> None:
    """The compiler takes a second to import, distributed tensors 0.6 s, and training on one process needs neither."""
    code = (
        "import sys\n"
        "from mnist_accel import TrainConfig\n"
        "from mnist_accel.training.events import Observer\n"
        "from mnist_accel.training.train import run_training\n"
        "run_training(TrainConfig(recipe='speedrun', train_samples=100, output_dir='out'), Observer())\n"
        "assert not {'torch._dynamo', 'torch.distributed.tensor', 'sympy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
