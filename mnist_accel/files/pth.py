"""Safe reader for untrusted files of torch.save (.pth), and their writer."""

import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

from mnist_accel.errors import WeightsError, printable

LARGEST_FILE, LARGEST_PICKLE = 2**28, 2**17
"""Bytes. The pickle holds names and shapes without the numbers. The models of this package take 3 MB and 2 kB."""
STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Bool", "Byte")
GLOBALS = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
GLOBALS |= {f"torch {kind}Storage" for kind in STORAGES}
"""Everything that a state dict needs. torch's own list for `weights_only` has members that can fill the memory."""


def write(value: Any) -> bytes:
    """The bytes of a file with `value`, which is made of tensors, dicts, lists and plain values."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def read(content: bytes, path: Path) -> Any:
    """The value in the bytes of the file `path`. No code in them runs, and they cannot fill the memory.

    Raises:
        WeightsError: the file is damaged, hostile, or not written by torch.save.
    """
    archive = open_plain(content, path)
    try:
        (entry,) = (entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
        if entry.file_size > LARGEST_PICKLE:
            raise pickle.UnpicklingError(f"{entry.file_size:,} bytes of names and shapes")
        _require_plain(archive.read(entry))
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # pickletools and torch raise almost any type on damaged input
        raise _unusable(path, error) from error


def open_plain(content: bytes, path: Path) -> zipfile.ZipFile:
    """An undamaged zip archive without compression, so that reading its entries takes no more memory than its size.

    Raises:
        WeightsError: the archive is compressed or damaged.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise zipfile.BadZipFile("a packed archive")
        if sum(entry.file_size for entry in entries) > len(content):
            raise zipfile.BadZipFile("its entries claim more bytes than it has")
        if (damaged := archive.testzip()) is not None:  # torch itself does not compare checksums
            raise zipfile.BadZipFile(f"the checksum of {printable(damaged, 60)} is wrong")
    except Exception as error:  # zipfile raises almost any type on damaged input
        raise _unusable(path, error) from error
    return archive


def _unusable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: damaged, cut short, or not of torch.save ({printable(error, 200) or type(error).__name__})",
        "copy it again, or save it with torch.save(model.state_dict(), …)",
    )


def _require_plain(pickled: bytes) -> None:
    """Refuse a pickle that refers to foreign globals, or to a tuple twice, without running it.

    A tuple of shared tuples can have 2**100 elements, and takes as long to hash.
    """
    tuples, before = set(), ""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument not in GLOBALS:
            raise pickle.UnpicklingError(f"refers to {printable(argument, 60)}; nothing in it was run")
        if "PUT" in opcode.name and before.startswith("TUPLE"):
            tuples.add(argument)
        if "GET" in opcode.name and argument in tuples:
            raise pickle.UnpicklingError("a shared tuple")
        before = opcode.name
