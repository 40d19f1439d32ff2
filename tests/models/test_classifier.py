import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mnist_accel.errors import WeightsError
from mnist_accel.files import weights
from mnist_accel.models import architectures as models
from mnist_accel.models import classifier
from mnist_accel.models.architectures import normalise


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "plain.pth"
    path.write_bytes(weights.serialise(models.build("cnn")))
    return path


def images(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize("count", [0, 1, classifier.BATCH_SIZE, classifier.BATCH_SIZE + 1])
def test_probabilities_are_those_of_the_model_for_any_number_of_images(path: Path, count: int) -> None:
    loaded = classifier.load(path, torch.device("cpu"))
    found = loaded.probabilities(images(count))
    assert found.shape == (count, 10)
    assert found.dtype == np.dtype(np.float32)
    with torch.inference_mode():
        batch = normalise(torch.tensor(images(count)).unsqueeze(1), torch.float32)
        expected = loaded.model(batch).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_class_names_come_from_the_record_else_from_their_number(path: Path, tmp_path: Path) -> None:
    loaded = classifier.load(path)
    assert (loaded.path, loaded.class_names, loaded.trained_on) == (path, tuple("0123456789"), None)
    copied = tmp_path / "copied.pth"
    copied.write_bytes(path.read_bytes())
    dataset = {"name": "kmnist", "class_names": list("abcdefghij")}
    facts = {"format_version": 1, "model": "cnn", "dataset": dataset}
    record = facts | {"weights_sha256": weights.sha256(copied.read_bytes())}
    copied.with_suffix(".json").write_text(json.dumps(record))
    loaded = classifier.load(copied)
    assert (loaded.class_names, loaded.trained_on) == (tuple("abcdefghij"), "kmnist")
    dataset["class_names"] = ["a", "b"]
    copied.with_suffix(".json").write_text(json.dumps(record))
    with pytest.raises(WeightsError, match="10 classes, but 2 class names"):
        classifier.load(copied)


def test_weights_that_are_not_numbers_give_no_probabilities(tmp_path: Path) -> None:
    model = models.build("cnn")
    torch.nn.init.constant_(next(model.parameters()), float("nan"))
    (tmp_path / "nan.pth").write_bytes(weights.serialise(model))
    with pytest.raises(WeightsError, match="no probabilities"):
        classifier.load(tmp_path / "nan.pth").probabilities(images(1))


def test_using_a_classifier_does_not_import_accelerate() -> None:
    program = "import sys; from mnist_accel.models import classifier; assert 'accelerate' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
