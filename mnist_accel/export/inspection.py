"""What a file of weights, a checkpoint or an exported model is, found without running anything in it: `inspect`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mnist_accel.errors import WeightsError
from mnist_accel.export.formats import FORMATS
from mnist_accel.files import checkpoint, exported, weights
from mnist_accel.files import run_record as runlog
from mnist_accel.files.checkpoint import CheckpointError
from mnist_accel.files.exported import Facts
from mnist_accel.models import architectures as models
from mnist_accel.models import classifier

LONGEST_TEXT = 300
"""Characters shown of one value: a file says of itself what it likes."""


@dataclass(frozen=True)
class Inspection:
    """What was found; the fields are the keys of `--json`.

    Attributes:
        facts: name and value, for people.
        tensors: name, shape, type and bytes of each.
        problems: what is wrong with it, or doubtful; empty when nothing is.
    """

    path: str
    kind: str
    bytes: int
    sha256: str
    facts: dict[str, str] = field(default_factory=dict)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def tell(self, name: str, value: object) -> None:
        """Add a fact, unless there is nothing to say."""
        if value not in (None, "", {}, []):
            self.facts[name] = _printable(value)

    def check(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, or None where it finds a problem, which is added."""
        try:
            return work()
        except WeightsError as error:
            self.problems.append(_printable(error.message))
            return None


def inspect(path: Path) -> Inspection:
    """What `path` is: a .pth, .safetensors, .onnx or .pt2 file, a checkpoint, or a folder that has checkpoints.

    Raises:
        UserError: it cannot be read, or is none of these.
    """
    if path.is_dir():
        return _checkpoint(path)
    content = classifier.read(path)
    kinds = {kind.suffix: f"exported model ({name})" for name, kind in FORMATS.items()}
    found = Inspection(str(path), kinds.get(path.suffix, "weights"), len(content), weights.sha256(content))
    if path.suffix == ".onnx":
        _onnx(content, path, found)
        return found
    if path.suffix == ".safetensors":
        state, metadata = exported.read_safetensors(content, path)
    elif path.suffix == ".pt2":
        state, metadata = exported.read_pt2(content, path)
    else:
        state, metadata = weights.load(content, path), {}
        record = found.check(lambda: runlog.read_record(path))
        if record:
            found.check(lambda: classifier.require_recorded(content, record, path))
            _record(record, found)
    facts = _metadata(metadata, path, found) if path.suffix in kinds else Facts()
    _state(state, found)
    fitting = found.check(lambda: weights.into_model(state, facts.model, path))
    if fitting:
        found.tell("model", f"{fitting[0]}, {models.parameter_count(fitting[1]):,} parameters")
    return found


def _record(record: Mapping[str, Any], found: Inspection) -> None:
    """What the JSON beside weights says."""
    dataset, metrics = record["dataset"], record.get("metrics")
    found.tell("trained on", f"{dataset['name']}, {dataset.get('train_samples')} images")
    found.tell("class names", ", ".join(dataset["class_names"]))
    if isinstance(metrics, dict):
        found.tell("test accuracy", f"{metrics.get('test_accuracy')}, loss {metrics.get('test_loss')}")
    for key in ("recipe", "config", "device_name", "mixed_precision", "world_size", "versions", "git_commit"):
        found.tell(key.replace("_", " "), record.get(key))


def _metadata(metadata: Mapping[str, str], path: Path, found: Inspection) -> Facts:
    """What an exported file says of itself."""
    if not metadata:
        found.problems.append("not exported by this program: nothing in it says which model it is")
        return Facts()
    facts: Facts | None = found.check(lambda: exported.from_metadata(metadata, path))
    for key in ("takes", "class_names", "trained_on", "mean", "std", "mnist_accel", "source_sha256"):
        found.tell(key.replace("_", " ").replace("mnist accel", "exported by mnist-accel"), metadata.get(key))
    return facts or Facts()


def _state(state: Mapping[str, Tensor], found: Inspection) -> None:
    for name, tensor in state.items():
        _tensor(found, name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.nbytes)


def _tensor(found: Inspection, name: str, shape: tuple[int, ...], kind: str, size: int) -> None:
    found.tensors.append({"name": _printable(name), "shape": list(shape), "type": kind, "bytes": size})


def _onnx(content: bytes, path: Path, found: Inspection) -> None:
    """An ONNX file's own description; no session is made of it."""
    graph, metadata = exported.parse_onnx(content, path)
    facts = _metadata(metadata, path, found)
    found.check(lambda: exported.require_bounded(graph, path))
    found.tell("model", facts.model)
    found.tell("opset", ", ".join(f"{opset.domain or 'ai.onnx'} {opset.version}" for opset in graph.opset_import))
    found.tell("written by", f"{graph.producer_name} {graph.producer_version}")
    found.tell("operators", ", ".join(node.op_type for node in graph.graph.node))
    for tensor in graph.graph.initializer:
        kind = exported.onnx_type_name(tensor.data_type)
        _tensor(found, tensor.name, tuple(tensor.dims), kind, len(tensor.raw_data))


def _checkpoint(path: Path) -> Inspection:
    """The checkpoint `path`, or the newest one in it, whole or not."""
    if not (path / checkpoint.MANIFEST).exists():
        known = checkpoint.numbered(path / checkpoint.FOLDER) or checkpoint.numbered(path)
        if not known:
            raise CheckpointError(f"{path}: a folder without checkpoints", "name a file, or a folder with checkpoints")
        path = known[-1][1]
    if (damage := checkpoint.damage_of(path)) is not None:
        return Inspection(str(path), "checkpoint", 0, "", problems=[_printable(f"{path} {damage}")])
    content = (path / checkpoint.STATE).read_bytes()
    state = checkpoint.read(path)
    found = Inspection(str(path), "checkpoint", len(content), weights.sha256(content))
    found.tell("position", f"epochs finished {state.get('epoch')}, step {state.get('step')} of the next")
    history = state.get("history")
    if isinstance(history, list) and history:
        found.tell("last epoch", history[-1])
    found.tell("run", state.get("identity"))
    found.tell("environment", state.get("environment"))
    model = state.get("model")
    if isinstance(model, Mapping) and all(isinstance(tensor, Tensor) for tensor in model.values()):
        _state({str(name): tensor for name, tensor in model.items()}, found)
    else:
        found.problems.append("its state has no weights")
    return found


def _printable(value: object) -> str:
    """A value as one short line without control characters; dicts as "name value, …"."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {inner}" for name, inner in value.items() if inner is not None)
    text = " ".join(str(value).split())
    text = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
