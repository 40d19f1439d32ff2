"""Weights files (.pth): a model's plain state dict as bytes, and back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_accel.errors import WeightsError, printable
from mnist_accel.files import pth
from mnist_accel.files.pth import ArchiveError

WRAPPER_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")
"""DistributedDataParallel and torch.compile put these before names."""


def serialise(model: nn.Module) -> bytes:
    """A model's state dict as the bytes of a .pth file: on the CPU, float32, without the prefixes of wrappers."""
    state = {
        _plain_name(name): tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
    }
    # Copies, because torch.save writes the whole storage of a tensor, in the tensor's own memory format.
    return pth.write({name: tensor.contiguous().clone() for name, tensor in state.items()})


def sha256(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def load(content: bytes, path: Path) -> dict[str, Tensor]:
    """The state dict in the bytes of a weights file. No code in them runs, and they cannot fill the memory.

    Args:
        path: of the file, for error messages.

    Raises:
        WeightsError: the bytes are not a complete, plain state dict.
    """
    try:
        state = pth.read(content)
    except ArchiveError as error:
        raise WeightsError(f"{path}: not a usable weights file: {error.message}", error.hint) from error
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: holds a {type(state).__name__}, not a state dict", "save model.state_dict()")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{path}: entry {printable(name, 60)!r} is a {type(value).__name__}, not a tensor with a name",
                "save model.state_dict() alone",
            )
    return {_plain_name(name): tensor for name, tensor in state.items()}


def _plain_name(name: str) -> str:
    return WRAPPER_PREFIXES.sub("", name)
