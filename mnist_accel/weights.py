"""Weights files: written plain, and read as what they are, a stranger's input."""

from __future__ import annotations

import hashlib
import io
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_accel import models
from mnist_accel.errors import WeightsError
from mnist_accel.names import did_you_mean

LARGEST_FILE = 2**28
"""Bytes; the largest model here has 2.4 MB."""
LARGEST_PICKLE = 2**20
"""Bytes; the names and shapes of the largest model here take 2 kB."""
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before names."""
HARMLESS_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Bool", "Byte")),
    }
)
"""All that a state dict needs. torch's own weights-only list is longer and has members that can fill the memory."""


def serialise(model: nn.Module) -> bytes:
    """A model's state dict as the bytes of a .pth file: on the CPU, float32, without wrappers' prefixes."""
    state = {
        _plain_name(name): tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in model.state_dict().items()
    }
    state = {name: tensor.contiguous().clone() for name, tensor in state.items()}  # whole storages, plain layout
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


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
    _require_plain_archive(content, path)
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises almost any type on a damaged file
        raise WeightsError(f"{path}: damaged weights file ({_first_line(error)})", "train or copy it again") from error
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
        model = models.build(candidate)
        differences[candidate] = _differences(model.state_dict(), state)
        if not differences[candidate]:
            model.load_state_dict(dict(state))
            return candidate, model
    found = "; ".join(f"model {candidate} differs: {text}" for candidate, text in differences.items())
    raise WeightsError(f"{path}: weights of another architecture ({found})", "give weights of a known model")


def _require_plain_archive(content: bytes, path: Path) -> None:
    """Refuse what torch.save does not write: packed or overlapping entries, foreign globals in the pickle."""
    if len(content) > LARGEST_FILE:
        raise WeightsError(f"{path}: {len(content):,} bytes are too many for any model here", "name another file")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise WeightsError(f"{path}: a packed archive, not a file of torch.save", "save it with torch.save")
            if sum(entry.file_size for entry in entries) > len(content):
                raise WeightsError(f"{path}: its entries promise more bytes than it has", "train or copy it again")
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
                raise WeightsError(f"{path}: not a weights file of torch.save", "name a .pth file with a state dict")
            foreign = _globals(archive.read(pickles[0])) - HARMLESS_GLOBALS
    except WeightsError:
        raise
    except Exception as error:  # zipfile and pickletools raise almost any type on damaged input
        raise WeightsError(
            f"{path}: not a weights file, or cut short ({_first_line(error)})", "train or copy it again"
        ) from error
    if foreign:
        raise WeightsError(
            f"{path}: refers to {', '.join(sorted(foreign)[:3])}, which no state dict needs; nothing in it was run",
            "use weights from a source you trust, saved with torch.save(model.state_dict(), …)",
        )


def _globals(pickled: bytes) -> set[str]:
    """The "module name" pairs that a pickle looks up, found without running it."""
    found = set()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL":
            found.add(str(argument))
        elif opcode.name in ("STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"):  # torch.save writes protocol 2
            raise pickle.UnpicklingError(f"opcode {opcode.name}")
    return found


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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
