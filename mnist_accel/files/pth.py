"""Files of torch.save, read as what they are: a stranger's input that may be damaged or hostile."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from typing import Any

import torch

from mnist_accel.errors import UserError

LARGEST_FILE = 2**28
"""Bytes; the largest file here, a checkpoint, has 8 MB."""
LARGEST_PICKLE = 2**22
"""Bytes; names and shapes of a checkpoint take some kB, its history 200 bytes an epoch."""
HARMLESS_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
        *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Bool", "Byte")),
    }
)
"""All that tensors by name need. torch's own weights-only list is longer and has members that can fill the memory."""


class ArchiveError(UserError):
    """The bytes are not a whole, plain file of torch.save."""


def write(value: Any) -> bytes:
    """`value`, made of tensors, dicts, lists and plain values, as the bytes of a file."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def read(content: bytes) -> Any:
    """What `write` was given; no code in the bytes runs, and they cannot fill the memory.

    Raises:
        ArchiveError: they are something else.
    """
    _require_plain(content)
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises almost any type on a damaged file
        raise ArchiveError(f"damaged ({first_line(error)})", "make or copy it again") from error


def open_plain(content: bytes) -> zipfile.ZipFile:
    """A zip archive whose entries are stored as they are and whole, so that reading them takes no more than its size.

    Raises:
        ArchiveError: it is another, or damaged.
    """
    if len(content) > LARGEST_FILE:
        raise ArchiveError(f"{len(content):,} bytes are too many for any model here", "name another file")
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ArchiveError("a packed archive, not a file of torch.save", "save it with torch.save")
        if sum(entry.file_size for entry in entries) > len(content):
            raise ArchiveError("its entries promise more bytes than it has", "make or copy it again")
        if (damaged := archive.testzip()) is not None:  # torch itself does not compare checksums
            raise ArchiveError(f"damaged: the checksum of {damaged} is wrong", "make or copy it again")
    except ArchiveError:
        raise
    except Exception as error:  # zipfile raises almost any type on damaged input
        raise ArchiveError(f"cut short, or not of torch.save ({first_line(error)})", "make or copy it again") from error
    return archive


def _require_plain(content: bytes) -> None:
    """Refuse what torch.save does not write: packed or overlapping entries, foreign globals in the pickle."""
    with open_plain(content) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
            raise ArchiveError("an archive, but not of torch.save", "name a .pth file with a state dict")
        try:
            foreign = _globals(archive.read(pickles[0])) - HARMLESS_GLOBALS
        except Exception as error:  # pickletools raises almost any type on damaged input
            raise ArchiveError(f"damaged, not of torch.save ({first_line(error)})", "make or copy it again") from error
    if foreign:
        raise ArchiveError(
            f"refers to {', '.join(sorted(foreign)[:3])}, which no state dict needs; nothing in it was run",
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


def first_line(error: Exception) -> str:
    """The beginning of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
