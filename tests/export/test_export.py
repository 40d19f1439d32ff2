import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from mnist_accel import EvaluateConfig, TrainConfig, UserError
from mnist_accel.api import evaluate, train
from mnist_accel.commands.export import target
from mnist_accel.data import datasets as data
from mnist_accel.errors import WeightsError
from mnist_accel.export import write as export
from mnist_accel.export.inspection import inspect
from mnist_accel.files import weights
from mnist_accel.files.exported import FORMATS
from mnist_accel.models import architectures as models
from mnist_accel.models import classifier
from mnist_accel.training.events import Observer
from scripts.export_agreement import agreement
from tests.conftest import SMALL_MNIST

pytestmark = pytest.mark.usefixtures("blank_pictures")
SUFFIXES = [kind.suffix for kind in FORMATS.values()]
READABLE = [".onnx", ".safetensors"]


@dataclass(frozen=True)
class Exports:
    folder: Path
    agreement: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.folder / "mnist_cnn_model.pth"

    def of(self, suffix: str) -> Path:
        return self.folder / f"exported{suffix}"


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """One small model and its exports in all formats."""
    folder = tmp_path_factory.mktemp("exports")
    train(
        TrainConfig(
            dataset=SMALL_MNIST, train_samples=1000, epochs=1, cpu=True, mixed_precision="no", output_dir=folder
        )
    )
    images = data.load("mnist", folder, Observer().notice).test.images[:1000]
    return Exports(folder, agreement(folder / "mnist_cnn_model.pth", images, folder))


@pytest.mark.parametrize("name", FORMATS)
def test_other_programs_get_the_predictions_of_the_original(exports: Exports, name: str) -> None:
    found = exports.agreement[name]
    assert found["same_predictions"] == exports.agreement["samples"] == 1000
    assert found["largest_difference"] < 1e-5


@pytest.mark.parametrize("suffix", READABLE)
def test_exported_files_evaluate_as_the_weights_do(exports: Exports, suffix: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"cpu": True, "mixed_precision": "no", "output_dir": tmp_path}
    original = evaluate(EvaluateConfig(weights=exports.weights, **settings))
    found = evaluate(EvaluateConfig(weights=exports.of(suffix), batch_size=300, **settings))
    assert found.dataset == original.dataset
    assert found.confusion_matrix == original.confusion_matrix
    assert found.loss == pytest.approx(original.loss, rel=1e-5)
    loaded = classifier.load(exports.of(suffix))
    assert (loaded.class_names, loaded.trained_on) == (tuple("0123456789"), SMALL_MNIST)


def test_a_pt2_file_is_refused_with_the_file_to_use_instead(exports: Exports) -> None:
    with pytest.raises(WeightsError, match=r"for other programs; name the \.pth file"):
        classifier.load(exports.of(".pt2"))


def test_running_statistics_and_other_numbers_of_classes_go_along(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.build("normalised-cnn", classes=26)
    model(torch.randn(64, 1, 28, 28))
    (tmp_path / "letters.pth").write_bytes(weights.serialise(model))
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    found = agreement(tmp_path / "letters.pth", images, tmp_path)
    for name, kind in FORMATS.items():
        assert found[name]["same_predictions"] == 20
        if kind.suffix in READABLE:
            loaded = classifier.load(tmp_path / f"exported{kind.suffix}")
            assert loaded.class_names == tuple(str(number) for number in range(26))


def test_an_onnx_file_says_what_it_is_and_nothing_of_the_machine(exports: Exports) -> None:
    session = onnxruntime.InferenceSession(exports.of(".onnx"))
    assert session.run(None, {"images": np.zeros((1, 28, 28), np.uint8)})[0].shape == (1, 10)
    assert session.get_inputs()[0].shape == ["N", 28, 28]
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["model"] == "cnn"
    assert json.loads(facts["class_names"]) == list("0123456789")
    assert facts["source_sha256"] == classifier.load(exports.weights).sha256
    assert [opset.version for opset in onnx.load(exports.of(".onnx")).opset_import] == [export.OPSET]
    for suffix in SUFFIXES:
        assert str(Path(export.__file__).parent).encode() not in exports.of(suffix).read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_tells_strangers_what_it_is(exports: Exports, suffix: str) -> None:
    record = json.loads(exports.weights.with_suffix(".json").read_text())
    expected = {
        "trained_on": SMALL_MNIST,
        "recipe": "classic",
        "test_accuracy": str(record["metrics"]["test_accuracy"]),
        "layers": str(models.build("cnn", dropout=0.5)),
        "weights": "float32",
    }
    if suffix == ".pt2":
        extra = {"facts.json": ""}
        torch.export.load(exports.of(suffix), extra_files=extra)
        found = json.loads(extra["facts.json"])
    else:
        found = inspect(exports.of(suffix))["metadata"]
    assert expected.items() <= found.items()
    assert "centre of mass" in found["input"]
    assert "20 × 20" in found["input"]
    assert "MIT" in found["licence"]


def test_an_onnx_file_documents_itself(exports: Exports) -> None:
    documentation = onnx.load(exports.of(".onnx")).doc_string
    for expected in ("# cnn, trained on", "centre of mass", "| recipe | classic |", "Conv2d(1, 32"):
        assert expected in documentation


def test_a_model_card_lies_beside_an_export(exports: Exports, tmp_path: Path) -> None:
    result = export.export(exports.weights, "safetensors", tmp_path / "some.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"some.safetensors", "MODEL_CARD.md"}
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("---\npipeline_tag: image-classification\n")
    accuracy = inspect(exports.weights)["metadata"]["metrics"]["test_accuracy"]
    for expected in (f"| test accuracy | {accuracy} |", "`some.safetensors` was compared", ".onnx", result["takes"]):
        assert expected in card


def test_a_card_of_weights_without_a_record_says_so(tmp_path: Path) -> None:
    (tmp_path / "some.pth").write_bytes(weights.serialise(models.build("cnn")))
    export.export(tmp_path / "some.pth", "safetensors", tmp_path / "some.safetensors")
    card = (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "# cnn, trained on data that is not recorded" in card
    assert "| test accuracy | not recorded |" in card


@pytest.mark.parametrize("name", FORMATS)
def test_float16_weights_take_half_the_space_and_cost_little(exports: Exports, tmp_path: Path, name: str) -> None:
    suffix = FORMATS[name].suffix
    result = export.export(exports.weights, name, tmp_path / f"half{suffix}", half=True)
    assert result["bytes"] < 0.55 * exports.of(suffix).stat().st_size
    assert 0 < result["largest_difference"] < export.TOLERANCES[torch.float16]
    assert result["weights"] == "float16"
    if suffix in READABLE:
        assert inspect(tmp_path / f"half{suffix}")["metadata"]["weights"] == "float16"
        digits = np.zeros((3, 28, 28), np.uint8)
        read, original = classifier.load(tmp_path / f"half{suffix}"), classifier.load(exports.weights)
        assert read.probabilities(digits) == pytest.approx(original.probabilities(digits), abs=0.01)


@pytest.mark.parametrize("suffix", READABLE)
def test_exports_are_inspected_like_weights(exports: Exports, suffix: str) -> None:
    found, original = inspect(exports.of(suffix)), inspect(exports.weights)
    assert (found["format"], found["classes"]) == (suffix[1:], list("0123456789"))
    assert found["metadata"]["source_sha256"] == original["sha256"]
    assert found["metadata"]["model"] == "cnn"
    assert found["metadata"].get("opset") == (export.OPSET if suffix == ".onnx" else None)
    assert found["parameters"] == original["parameters"]


def test_another_precision_is_refused_for_an_onnx_file(exports: Exports, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="computes in float32"):
        evaluate(EvaluateConfig(weights=exports.of(".onnx"), mixed_precision="bf16", output_dir=tmp_path))


def test_safetensors_can_be_exported_again_and_graphs_cannot(exports: Exports, tmp_path: Path) -> None:
    again = export.export(exports.of(".safetensors"), "safetensors", tmp_path / "again.safetensors")
    assert again["largest_difference"] == 0
    with pytest.raises(UserError, match="an ONNX graph cannot be exported"):
        export.export(exports.of(".onnx"), "safetensors", tmp_path / "graph.safetensors")


def test_a_file_that_differs_from_the_original_is_not_written(
    exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: torch.nn.Module, metadata: dict[str, str]) -> bytes:
        torch.nn.init.zeros_(list(model.parameters())[-1])
        return export._write_safetensors(model, metadata)

    monkeypatch.setitem(export.WRITERS, "safetensors", wrong)
    with pytest.raises(UserError, match="nothing was written"):
        export.export(exports.weights, "safetensors", tmp_path / "wrong.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments_are_refused_before_any_work(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    source = exports.weights
    assert target("torch-export", source, None) == source.with_suffix(".pt2")
    for arguments, expected in [
        (("onnx", source, Path("model.pb")), "let it end in .onnx"),
        (("onnx", Path("missing.pth"), None), "no such file"),
        (("safetensors", exports.of(".safetensors"), None), "would replace the weights themselves"),
    ]:
        with pytest.raises(UserError, match=expected):
            target(*arguments)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r'needs onnx and onnxscript and onnxruntime.*pip install "mnist-accel\[export\]"'
    ):
        target("onnx", source, None)
    with pytest.raises(UserError, match="needs onnx and onnxruntime"):
        classifier.load(exports.of(".onnx"))


@pytest.mark.parametrize("suffix", READABLE)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9999])
def test_an_export_cut_short_is_refused(exports: Exports, suffix: str, share: float) -> None:
    content = exports.of(suffix).read_bytes()
    with pytest.raises(WeightsError):
        classifier.from_content(content[: int(share * len(content))], Path("cut").with_suffix(suffix))


@pytest.mark.parametrize("suffix", READABLE)
def test_damage_of_an_export_ends_in_no_other_error_than_a_refusal(exports: Exports, suffix: str) -> None:
    content, random = exports.of(suffix).read_bytes(), np.random.default_rng(0)
    refused = 0
    for number in range(24):
        damaged = bytearray(content)
        place = [int(random.integers(500)), -1 - int(random.integers(3000))][number % 2]
        damaged[place] ^= 1 << int(random.integers(8))
        try:
            classifier.from_content(bytes(damaged), Path("damaged").with_suffix(suffix), torch.device("cpu"))
        except UserError:
            refused += 1
    assert refused


def changed_onnx(exports: Exports, change: Callable[[Any], object]) -> bytes:
    """An .onnx file with a changed graph."""
    proto = onnx.load(exports.of(".onnx"))
    change(proto.graph)
    content: bytes = proto.SerializeToString()
    return content


def external(tensor: Any) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def test_onnx_files_that_refer_to_other_files_are_refused(exports: Exports) -> None:
    with pytest.raises(WeightsError, match="other files"):
        classifier.from_content(changed_onnx(exports, lambda graph: external(graph.initializer[0])), Path("x.onnx"))


def test_onnx_files_of_another_shape_are_refused(exports: Exports) -> None:
    def rename(graph: Any) -> None:
        graph.input[0].name = "pictures"

    def flatten(graph: Any) -> None:
        graph.node[-1].output[0] = "before"
        graph.node.append(helper.make_node("Flatten", ["before"], ["probabilities"], axis=0))

    def sum_up(graph: Any) -> None:
        graph.node[-1].output[0] = "before"
        graph.node.append(helper.make_node("ReduceSum", ["before"], ["probabilities"], keepdims=0))

    with pytest.raises(WeightsError, match="not a usable model"):
        classifier.from_content(changed_onnx(exports, rename), Path("x.onnx"))
    with pytest.raises(WeightsError, match="not a usable model"):
        classifier.from_content(changed_onnx(exports, sum_up), Path("x.onnx"))
    loaded = classifier.from_content(changed_onnx(exports, flatten), Path("x.onnx"))
    with pytest.raises(WeightsError, match="not a usable model"):
        loaded.probabilities(np.zeros((2, 28, 28), np.uint8))


def test_an_unknown_element_type_of_onnx_is_refused(exports: Exports, tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        graph.initializer[0].data_type = 999

    (tmp_path / "odd.onnx").write_bytes(changed_onnx(exports, change))
    with pytest.raises(WeightsError, match="not a usable model"):
        classifier.load(tmp_path / "odd.onnx")


def test_files_of_other_programs_are_recognised_by_their_tensors_or_refused(exports: Exports) -> None:
    """Tensors are recognised by their shapes; a graph must have the metadata of an export."""
    import safetensors.torch

    plain = safetensors.torch.save(torch.load(exports.weights, weights_only=True))
    loaded = classifier.from_content(plain, Path("plain.safetensors"))
    assert (loaded.architecture, loaded.trained_on) == ("cnn", None)
    with pytest.raises(WeightsError, match="fit no model"):
        classifier.from_content(safetensors.torch.save({"w": torch.zeros(3)}), Path("other.safetensors"))
    proto = onnx.load(exports.of(".onnx"))
    proto.ClearField("metadata_props")
    with pytest.raises(WeightsError, match="not exported by this program"):
        classifier.from_content(proto.SerializeToString(), Path("x.onnx"))


def test_weights_may_not_be_named_for_another_format(exports: Exports, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        shutil.copy(exports.weights, tmp_path / f"misnamed{suffix}")
        with pytest.raises(WeightsError):
            classifier.load(tmp_path / f"misnamed{suffix}")
