"""Weights files: written plain, and read as what they are, a stranger's input."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_accel.errors import WeightsError, did_you_mean
from mnist_accel.files import pth as archive
from mnist_accel.files.pth import ArchiveError
from mnist_accel.models import architectures as models

MOST_CLASSES = 256
"""Labels are bytes."""
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before names."""


def serialise(model: nn.Module) -> bytes:
    """A model's state dict as the bytes of a .pth file: on the CPU, float32, without wrappers' prefixes."""
    state = {
        _plain_name(name): tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
    }
    state = {name: tensor.contiguous().clone() for name, tensor in state.items()}  # whole storages, plain layout
    return archive.write(state)


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def load(content: bytes, path: Path) -> dict[str, Tensor]:
    """The state dict in the bytes of a weights file; no code in them runs, and they cannot fill the memory.

    Args:
        path: where they came from, for the error.

    Raises:
        WeightsError: they are not a whole, plain state dict.
    """
    try:
        state = archive.read(content)
    except ArchiveError as error:
        raise WeightsError(f"{path}: not a usable weights file: {error.message}", error.hint) from error
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: holds a {type(state).__name__}, not a state dict", "save model.state_dict()")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: its entry {str(name)[:60]!r} is a {type(value).__name__}, not a tensor by name",
                "save model.state_dict() alone",
            )
    return {_plain_name(name): tensor for name, tensor in state.items()}


def into_model(state: Mapping[str, Tensor], name: str | None, path: Path) -> tuple[str, nn.Module]:
    """A model with these weights, and its architecture's name.

    Args:
        name: the architecture, or None to take the known one that the shapes fit.

    Raises:
        WeightsError: the shapes fit none, or not that one; the message names the keys that differ.
    """
    candidates = list(models.MODELS) if name is None else [name]
    differences = {}
    for candidate in candidates:
        if candidate not in models.MODELS:
            raise WeightsError(f"{path}: of an unknown model {candidate!r}", did_you_mean(candidate, models.MODELS))
        model = models.build(candidate, classes=_classes(state))
        differences[candidate] = _differences(model.state_dict(), state)
        if not differences[candidate]:
            model.load_state_dict(dict(state))
            return candidate, model
    found = "; ".join(f"model {candidate} differs: {text}" for candidate, text in differences.items())
    raise WeightsError(f"{path}: weights of another architecture ({found})", "give weights of a known model")


def _classes(state: Mapping[str, Tensor]) -> int:
    """As many as the last layer gives, whatever the order of names; 10 where there is nothing of the kind."""
    layers = [int(found[1]) for name in state if (found := re.fullmatch(r"classifier\.(\d{1,3})\.weight", name))]
    last = state[f"classifier.{max(layers)}.weight"] if layers else None
    return len(last) if last is not None and last.dim() == 2 and 2 <= len(last) <= MOST_CLASSES else 10


def _plain_name(name: str) -> str:
    while name.startswith(WRAPPER_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Which keys are missing, unexpected or of another shape; "" when none is."""
    parts = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "other shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    return ", ".join(
        f"{kind} {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for kind, names in parts.items()
        if names
    )
