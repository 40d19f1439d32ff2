"""Inspection of weights, exported models and checkpoints. Nothing in them is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mnist_accel.errors import WeightsError, printable
from mnist_accel.export.formats import FORMATS
from mnist_accel.files import checkpoint, exported, pth, run_record, weights
from mnist_accel.files.checkpoint import CheckpointError
from mnist_accel.files.pth import ArchiveError
from mnist_accel.models import classifier


@dataclass(frozen=True)
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

    @property
    def facts(self) -> dict[str, str]:
        """The metadata as printable lines for people."""
        return {printable(name, 40): _text(value) for name, value in self.metadata.items() if value not in (None, "")}


def inspect(path: Path) -> Inspection:
    """Inspect a .pth, .safetensors, .onnx or .pt2 file, a checkpoint, or the newest checkpoint in a folder.

    Raises:
        UserError: `path` cannot be read, or is none of these.
    """
    if path.is_dir():
        return _inspect_checkpoint(path)
    content = classifier.read(path)
    kinds = {kind.suffix: f"exported model ({name})" for name, kind in FORMATS.items()}
    found = Inspection(str(path), kinds.get(path.suffix, "weights"), len(content), weights.sha256(content))
    if path.suffix == ".onnx":
        model, metadata = exported.read_onnx(content, path)
        found.tensors.extend(exported.onnx_tensors(model))
    elif path.suffix == ".safetensors":
        state, metadata = exported.read_safetensors(content, path)
        found.tensors.extend(_tensors(state))
    elif path.suffix == ".pt2":
        metadata = _pt2_metadata(content, path)
    else:
        found.tensors.extend(_tensors(weights.load(content, path)))
        _add_record(content, path, found)
        return found
    found.metadata.update(metadata)
    try:
        found.metadata["class_names"] = exported.class_names_of(metadata, path)
    except WeightsError as error:
        found.problems.append(printable(error.message))
    return found


def _add_record(content: bytes, path: Path, found: Inspection) -> None:
    """Add the JSON beside weights."""
    try:
        record = run_record.read_record(path)
        if record is not None:
            json.dumps(record, allow_nan=False)
            found.metadata.update(record)
            classifier.require_recorded(content, record, path)
    except (WeightsError, ValueError) as error:
        found.problems.append(printable(getattr(error, "message", error)))


def _tensors(state: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [
        {
            "name": printable(name, 100),
            "shape": list(tensor.shape),
            "type": str(tensor.dtype).removeprefix("torch."),
            "bytes": tensor.nbytes,
        }
        for name, tensor in state.items()
    ]


def _pt2_metadata(content: bytes, path: Path) -> dict[str, str]:
    """The metadata that `export` wrote into a .pt2 file; empty if another program wrote the file.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        with pth.open_plain(content) as archive:
            names = [name for name in archive.namelist() if name.endswith("/extra/facts.json")]
            metadata = json.loads(archive.read(names[0])) if names else {}
            return {str(name): str(value) for name, value in metadata.items()}
    except (ArchiveError, ValueError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path}: not a .pt2 file, or damaged ({pth.first_line(error)})", "copy it again") from error


def _inspect_checkpoint(path: Path) -> Inspection:
    """Inspect the checkpoint `path`, or the newest one in the folder `path`."""
    if not (path / checkpoint.MANIFEST).exists():
        known = checkpoint.numbered(path / checkpoint.FOLDER) or checkpoint.numbered(path)
        if not known:
            raise CheckpointError(f"{path}: a folder without checkpoints", "name a file, or a folder with checkpoints")
        path = known[-1][1]
    if (damage := checkpoint.damage_of(path)) is not None:
        return Inspection(str(path), "checkpoint", 0, "", problems=[printable(f"{path} {damage}")])
    content = (path / checkpoint.STATE).read_bytes()
    found = Inspection(str(path), "checkpoint", len(content), weights.sha256(content))
    state = checkpoint.read(path)
    found.tensors.extend(_tensors(state.get("model") or {}))
    facts = ("epoch", "step", "identity", "environment", "history")
    found.metadata.update({name: state[name] for name in facts if name in state})
    return found


def _text(value: object) -> str:
    """A value as one line; dicts as "name value, …"."""
    if isinstance(value, Mapping):
        return printable(", ".join(f"{name} {_text(inner)}" for name, inner in value.items() if inner is not None))
    if isinstance(value, list):
        return printable(", ".join(map(_text, value[-10:])))
    return printable(value)
