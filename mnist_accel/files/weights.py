"""Weights files (.pth): a model's plain state dict as bytes, and back."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_accel.errors import WeightsError, printable
from mnist_accel.files import pth

WRAPPER_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")
"""DistributedDataParallel and torch.compile put these before names."""


def serialise(model: nn.Module) -> bytes:
    """A model's state dict as the bytes of a .pth file: on the CPU, float32, without the prefixes of wrappers."""
    state = {}
    for name, tensor in model.state_dict().items():
        plain = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        # Copies, because torch.save writes the whole storage of a tensor, in the tensor's own memory format.
        state[WRAPPER_PREFIXES.sub("", name)] = plain.contiguous().clone()
    return pth.write(state)


def sha256(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def load(content: bytes, path: Path) -> dict[str, Tensor]:
    """The state dict in the bytes of the weights file `path`. No code in them runs, and they cannot fill the memory.

    Raises:
        WeightsError: the bytes are not a complete, plain state dict.
    """
    state = pth.read(content, path)
    hint = "save model.state_dict() alone"
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: holds a {type(state).__name__}, not a state dict", hint)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise WeightsError(f"{path}: entry {printable(name, 60)!r} is a {kind}, not a tensor with a name", hint)
    return {WRAPPER_PREFIXES.sub("", name): tensor for name, tensor in state.items()}
