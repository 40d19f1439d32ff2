import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_accel import TrainConfig, UserError, evaluate, train
from mnist_accel.config.settings import EvaluateConfig
from mnist_accel.export.write import export
from mnist_accel.files.checkpoint import CheckpointError
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import classifier, own_network
from mnist_accel.training.events import Observer
from tests.conftest import SMALL_MNIST, clean_environment
from tests.models.own_networks import Grouped

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "your-own-network.md"
pytestmark = pytest.mark.usefixtures("blank_pictures")
NETWORKS = ["my_net.py:Residual", f"{HERE / 'own_networks.py'}:Patches", "tests.models.own_networks:Grouped"]
UNUSUAL = "tests.models.own_networks:Unusual"


@pytest.fixture(autouse=True)
def my_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of the documentation's example, in the current folder."""
    block, *_ = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "my_net.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    own_network.load_class.cache_clear()


def settings(model: str, **changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"dataset": SMALL_MNIST, "train_samples": 250, "epochs": 2, "batch_size": 50, "threads": 1}
    return TrainConfig(model=model, cpu=True, **given | changes)


class StopAfter(Observer):
    def __init__(self, steps: int) -> None:
        self.steps, self.stop = steps, StopRequests()

    def step_finished(self, step: int, sums: Any) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", [*NETWORKS, UNUSUAL])
def test_a_network_of_your_own_resumes_exactly_and_is_exported(name: str, tmp_path: Path) -> None:
    whole = train(settings(name, output_dir=tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(settings(name, checkpoint_every=3, output_dir=tmp_path / "cut"), StopAfter(7))
    resumed = train(settings(name, checkpoint_every=3, resume="auto", output_dir=tmp_path / "cut"))
    assert resumed.weights_sha256 == whole.weights_sha256
    weights = tmp_path / "whole" / "mnist_cnn_model.pth"
    result = evaluate(EvaluateConfig(weights=weights, model=name, cpu=True, threads=1, output_dir=tmp_path / "seen"))
    assert result.accuracy == pytest.approx(whole.test_accuracy)
    for kind, file in (("onnx", "net.onnx"), ("safetensors", "net.safetensors")):
        assert export(weights, kind, tmp_path / file, name)["largest_difference"] < 1e-4
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    expected = classifier.load(weights, model=name).probabilities(images)
    np.testing.assert_allclose(classifier.load(tmp_path / "net.onnx").probabilities(images), expected, atol=1e-4)


def on_processes(number: int, name: str, folder: Path) -> "tuple[float, str]":
    """The training loss of an epoch in float64 on this many processes, and stderr."""
    recipe = folder / "float64.toml"
    recipe.write_text(f'model = "{name}"\ndtype = "float64"\n')
    options = f"--train-samples 330 --epochs 1 --cpu --threads 1 --processes {number} --json --quiet".split()
    command = [
        sys.executable,
        "-m",
        "mnist_accel",
        "train",
        "--dataset",
        SMALL_MNIST,
        "--recipe",
        str(recipe),
        *options,
    ]
    environment = clean_environment() | {"PYTHONPATH": str(HERE.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["train_loss"], done.stderr


@pytest.mark.parametrize("name", [NETWORKS[0], pytest.param(UNUSUAL, marks=pytest.mark.slow)])
def test_two_processes_compute_what_one_computes(name: str, tmp_path: Path) -> None:
    (one, _), (two, heard) = (on_processes(number, name, tmp_path) for number in (1, 2))
    assert two == pytest.approx(one, rel=1e-12)
    assert "so results depend on the number of processes" not in heard


def test_batch_normalisation_on_several_processes_is_said(tmp_path: Path) -> None:
    _, heard = on_processes(2, "tests.models.own_networks:Normalised", tmp_path)
    assert heard.count("so results depend on the number of processes") == 1


def test_a_class_can_be_passed_from_python(tmp_path: Path) -> None:
    result = train(settings("cnn", epochs=1, output_dir=tmp_path), model=Grouped)
    assert result.model == "tests.models.own_networks:Grouped"


def test_a_checkpoint_of_a_changed_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(settings("my_net.py:Residual", checkpoint_every=2, output_dir=tmp_path), StopAfter(5))
    changed = tmp_path / "my_net.py"
    changed.write_text(changed.read_text().replace("nn.ReLU()", "nn.GELU()", 1))
    own_network.load_class.cache_clear()
    with pytest.raises(CheckpointError, match="model_source"):
        train(settings("my_net.py:Residual", checkpoint_every=2, resume="auto", output_dir=tmp_path))


def test_weights_of_an_own_network_ask_for_it(tmp_path: Path) -> None:
    train(settings("my_net.py:Residual", epochs=1, output_dir=tmp_path))
    with pytest.raises(UserError, match=r"give --model my_net.py:Residual"):
        evaluate(tmp_path / "mnist_cnn_model.pth")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("WrongShape", r"give \(2, 11\), not \(2, 10\)"),
        ("Unused", "no gradient for spare"),
        ("Random", "in evaluation mode the same images give other logits"),
        ("OtherRandomNumbers", "in training the same images give other logits after torch.manual_seed"),
        ("HiddenState", "training changes counter, but no checkpoint holds"),
        ("Lazy", "has lazy layers"),
        ("NoArgument", "must accept one argument, classes="),
        ("NotANetwork", "cannot compute"),
        ("Missing", "has no attribute 'Missing'"),
    ],
)
def test_a_network_that_cannot_be_trained_is_refused_before_training(name: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        train(settings(f"tests.models.own_networks:{name}", output_dir=tmp_path))
    assert not list(tmp_path.glob("*.pth"))


def test_a_network_that_needs_several_images_is_refused_where_a_process_gets_one(tmp_path: Path) -> None:
    name = "tests.models.own_networks:Normalised"
    with pytest.raises(UserError, match=r"cannot compute \(Expected more than 1 value.*change --batch-size"):
        train(settings(name, train_samples=401, output_dir=tmp_path))
    assert train(settings(name, train_samples=402, epochs=1, output_dir=tmp_path)).steps == 9


@pytest.mark.parametrize("name", ["missing.py:Net", "no_such_package.nets:Net"])
def test_a_missing_file_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be imported"):
        train(settings(name, output_dir=tmp_path))


def test_an_error_that_is_only_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def Net(classes):\n    return {}['layers']\n")
    with pytest.raises(UserError, match=r"cannot be built \(KeyError\('layers'\)\); it must accept"):
        own_network.build(f"{tmp_path / 'net.py'}:Net", 10, 2)
