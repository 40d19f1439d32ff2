"""Inspection of weights, exported models and checkpoints."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mnist_accel.files import checkpoint
from mnist_accel.files.checkpoint import CheckpointError, CheckpointFolder
from mnist_accel.models import architectures, classifier


@dataclass(frozen=True)
class Inspection:
    """A file or checkpoint; the fields are the keys of `--json`.

    Attributes:
        format: "pth", "safetensors", "onnx" or "checkpoint".
        sha256: of the file; None for a checkpoint, which holds its own.
        classes: their names; None for a checkpoint.
        parameters: numbers in the model; of a checkpoint, all numbers.
        metadata: of an exported file or checkpoint, or the JSON beside weights.
    """

    path: str
    format: str
    sha256: str | None
    classes: list[str] | None
    parameters: int
    metadata: Mapping[str, Any]


def inspect(path: Path, model: str | None = None) -> Inspection:
    """Inspect a .pth, .safetensors or .onnx file, a checkpoint, or the newest checkpoint in a folder."""
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if the name is too long
        known = CheckpointFolder(path / checkpoint.FOLDER).numbered() or CheckpointFolder(path).numbered()
        if not known:
            raise CheckpointError(f"{path}: a folder without checkpoints", "name a file, or a folder with checkpoints")
        path = known[-1][1]
    if checkpoint.NAME.fullmatch(path.name):
        saved = checkpoint.read(path)
        numbers = sum(tensor.numel() for tensor in saved.tensors.values())
        return Inspection(str(path), "checkpoint", None, None, numbers, json.loads(saved.state))
    found = classifier.load(path, torch.device("cpu"), model)
    facts = dict(found.facts)
    parameters = facts.pop("parameters", None) or architectures.parameter_count(found.model)
    kind = {".safetensors": "safetensors", ".onnx": "onnx"}.get(path.suffix, "pth")
    return Inspection(str(path), kind, found.sha256, list(found.class_names), parameters, facts)
