"""Inspection of weights, exported models and checkpoints."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from mnist_accel.files import checkpoint
from mnist_accel.files.checkpoint import CheckpointError, CheckpointFolder
from mnist_accel.models import classifier


def inspect(path: Path, model: str | None = None) -> dict[str, Any]:
    """Facts about a .pth, .safetensors or .onnx file, a checkpoint, or the newest checkpoint in a folder; JSON values.

    `sha256` and `classes` are None for a checkpoint, whose `parameters` counts all its numbers.
    """
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises if the name is too long
        known = CheckpointFolder(path / checkpoint.FOLDER).numbered() or CheckpointFolder(path).numbered()
        if not known:
            raise CheckpointError(f"{path}: a folder without checkpoints", "name a file, or a folder with checkpoints")
        path = known[-1][1]
    facts: dict[str, Any] = {"path": str(path), "format": "checkpoint", "sha256": None, "classes": None}
    if checkpoint.NAME.fullmatch(path.name):
        saved = checkpoint.read(path)
        numbers = sum(tensor.numel() for tensor in saved.tensors.values())
        return facts | {"parameters": numbers, "metadata": json.loads(saved.state)}
    found = classifier.load(path, torch.device("cpu"), model)
    metadata = dict(found.facts)
    return facts | {
        "format": path.suffix[1:] if path.suffix in (".safetensors", ".onnx") else "pth",
        "sha256": found.sha256,
        "classes": list(found.class_names),
        "parameters": metadata.pop("parameters", None) or sum(each.numel() for each in found.model.parameters()),
        "metadata": metadata,
    }
