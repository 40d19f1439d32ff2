"""Weights files (.pth): a model's plain state dict as bytes, and back. The reader is safe for untrusted files."""

import hashlib
import io
import pickletools
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from mnist_accel.errors import WeightsError, printable
from mnist_accel.files.untrusted import refusing

LARGEST_FILE, LARGEST_PICKLE = 2**28, 2**17  # bytes. This package's models take 3 MB, and 2 kB for names and shapes.
GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
GLOBALS |= {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Bool", "Byte")}
"""Everything that a state dict needs. torch's own list for `weights_only` has members that can fill the memory."""
WRAPPER_PREFIXES = re.compile(r"^(module\.|_orig_mod\.)+")  # of DistributedDataParallel and torch.compile


def serialise(model: nn.Module) -> bytes:
    """A model's state dict as the bytes of a .pth file: on the CPU, float32, without the prefixes of wrappers."""
    state = {}
    for name, tensor in model.state_dict().items():
        plain = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        # Copies, because torch.save writes the whole storage of a tensor, in the tensor's own memory format.
        state[WRAPPER_PREFIXES.sub("", name)] = plain.contiguous().clone()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def load(content: bytes, path: Path) -> dict[str, Tensor]:
    """The state dict in the bytes of the file `path`: no code in them runs, and they cannot fill the memory."""
    hint = "copy it again, or save it with torch.save(model.state_dict(), …)"
    with refusing(WeightsError, f"{path}: damaged, cut short, or not of torch.save", hint):
        _require_plain(_pickle_in(content))
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not state or not all(isinstance(name, str) and isinstance(state[name], Tensor) for name in state):
            raise ValueError("not tensors by name")
    return {WRAPPER_PREFIXES.sub("", name): tensor for name, tensor in state.items()}


def _pickle_in(content: bytes) -> bytes:
    """The pickle in an archive of torch.save. Reading the archive takes no more memory than its size."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = archive.infolist()
    is_packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if is_packed or sum(entry.file_size for entry in entries) > len(content):
        raise ValueError("a packed archive, or one whose entries overlap")
    if (damaged := archive.testzip()) is not None:  # torch itself does not compare checksums
        raise ValueError(f"the checksum of {printable(damaged, 60)} is wrong")
    (pickled,) = (entry for entry in entries if entry.filename.endswith("data.pkl"))
    if pickled.file_size > LARGEST_PICKLE:
        raise ValueError(f"{pickled.file_size:,} bytes of names and shapes")
    return archive.read(pickled)


def _require_plain(pickled: bytes) -> None:
    """Refuse a pickle that refers to foreign globals, or to a tuple twice, without running it."""
    tuples, before = set(), ""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument not in GLOBALS:
            raise ValueError(f"refers to {printable(argument, 60)}; nothing in it was run")
        if "PUT" in opcode.name and before.startswith("TUPLE"):
            tuples.add(argument)
        if "GET" in opcode.name and argument in tuples:
            raise ValueError("a shared tuple")  # which may have 2**100 elements, and take as long to hash
        before = opcode.name
