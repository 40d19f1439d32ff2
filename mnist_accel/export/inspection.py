"""Inspection of weights, exported models and checkpoints. Nothing in them is run."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mnist_accel.errors import WeightsError, printable
from mnist_accel.export.formats import FORMATS
from mnist_accel.files import checkpoint, exported, pth, run_record, weights
from mnist_accel.files.checkpoint import CheckpointError, CheckpointFolder
from mnist_accel.files.untrusted import read_limited
from mnist_accel.models import classifier

if TYPE_CHECKING:
    import onnx


@dataclass
class Inspection:
    """A file or checkpoint; the fields are the keys of `--json`.

    Attributes:
        kind: "weights", "exported model (FORMAT)" or "checkpoint".
        tensors: name, shape, type and bytes of each.
        metadata: of an exported file or checkpoint, or the JSON beside weights.
        problems: damage and doubts; empty for a complete file.
    """

    path: str
    kind: str
    bytes: int
    sha256: str
    tensors: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def inspect(path: Path) -> Inspection:
    """Inspect a .pth, .safetensors, .onnx or .pt2 file, a checkpoint, or the newest checkpoint in a folder.

    Raises:
        UserError: `path` cannot be read, or is none of these.
    """
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if the name is too long
        return _inspect_checkpoint(path)
    content = classifier.read(path)
    kinds = {kind.suffix: f"exported model ({name})" for name, kind in FORMATS.items()}
    found = Inspection(str(path), kinds.get(path.suffix, "weights"), len(content), weights.sha256(content))
    if path.suffix == ".onnx":
        model, metadata = exported.read_onnx(content, path)
        found.tensors = _onnx_tensors(model)
    elif path.suffix == ".safetensors":
        state, metadata = exported.read_safetensors(content, path)
        found.tensors = _tensors(state)
    elif path.suffix == ".pt2":
        pth.open_plain(content, path)
        return found
    else:
        found.tensors = _tensors(weights.load(content, path))
        _add_record(content, path, found)
        return found
    found.metadata.update(metadata)
    try:
        found.metadata["class_names"] = list(exported.class_names_of(metadata, path))
    except WeightsError as error:
        found.problems.append(printable(error.message))
    return found


def _add_record(content: bytes, path: Path, found: Inspection) -> None:
    """Add the JSON beside weights."""
    try:
        record = run_record.read_record(path)
        if record is not None:
            json.dumps(record, allow_nan=False)
            found.metadata = record
            classifier.require_recorded(content, record, path)
    except (WeightsError, ValueError) as error:
        found.problems.append(printable(getattr(error, "message", error)))


def _tensors(state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [
        _tensor(name, tensor.shape, str(tensor.dtype).removeprefix("torch."), tensor.nbytes)
        for name, tensor in state.items()
    ]


def _onnx_tensors(model: "onnx.ModelProto") -> list[dict[str, Any]]:
    import onnx

    types = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    return [
        _tensor(one.name, one.dims, types.get(one.data_type, f"unknown ({one.data_type})"), len(one.raw_data))
        for one in model.graph.initializer
    ]


def _tensor(name: str, shape: Iterable[int], dtype: str, size: int) -> dict[str, Any]:
    return {"name": printable(name, 100), "shape": list(shape), "type": dtype, "bytes": size}


def _inspect_checkpoint(path: Path) -> Inspection:
    """Inspect the checkpoint `path`, or the newest one in the folder `path`; size and SHA-256 are of its tensors."""
    if not (path / checkpoint.MANIFEST).exists():
        known = CheckpointFolder(path / checkpoint.FOLDER).numbered() or CheckpointFolder(path).numbered()
        if not known:
            raise CheckpointError(f"{path}: a folder without checkpoints", "name a file, or a folder with checkpoints")
        path = known[-1][1]
    found = Inspection(str(path), "checkpoint", 0, "")
    try:
        saved = checkpoint.read(path)
        content = read_limited(path / checkpoint.TENSORS, checkpoint.LARGEST_FILE)
        found.bytes, found.sha256, found.tensors = len(content), weights.sha256(content), _tensors(saved.tensors)
        state = json.loads(saved.state)
        json.dumps(state, allow_nan=False)
        found.metadata.update(state)
    except CheckpointError as error:
        found.problems.append(printable(error.message))
    except (ValueError, TypeError, RecursionError) as error:
        found.problems.append(f"{checkpoint.STATE} is not usable: {printable(error, 120)}")
    return found
