"""Safe reader for untrusted files of torch.save (.pth), and their writer."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from typing import Any

import torch

from mnist_accel.errors import UserError, printable

LARGEST_FILE = 2**28
"""Bytes. The models of this package take up to 3 MB."""
LARGEST_PICKLE = 2**20
"""Bytes, for names and shapes without the numbers; the models of this package take 2 kB."""
FUNCTIONS = frozenset({"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"})
STORAGES = frozenset(
    f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Bool", "Byte")
)
"""With FUNCTIONS all that a state dict needs. torch's own list for `weights_only` also has members that can fill the
memory."""
KEYS = frozenset({"BINUNICODE", "BININT", "BININT1", "BININT2"})
"""Opcodes that make texts and 32-bit integers. Other keys of a dict can take hours to hash."""
TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
OPCODES = KEYS | TUPLES | {"PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"}
OPCODES |= {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS"}
OPCODES |= {"NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "LONG1", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
"""Those that torch.save writes for dicts, lists, tensors and plain values."""


class ArchiveError(UserError):
    """The bytes are not a complete, plain file of torch.save."""


def write(value: Any) -> bytes:
    """The bytes of a file with `value`, which is made of tensors, dicts, lists and plain values."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def read(content: bytes) -> Any:
    """The value in the bytes of a file. No code in them runs, and they cannot fill the memory.

    Raises:
        ArchiveError: the file is damaged, hostile, or not written by torch.save.
    """
    with open_plain(content) as archive:
        pickles = [entry for entry in archive.infolist() if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE:
            raise ArchiveError("an archive, but not of torch.save", "name a .pth file with a state dict")
        pickled = archive.read(pickles[0])
    try:
        _require_plain(pickled)
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except ArchiveError:
        raise
    except Exception as error:  # torch and pickletools raise almost any type on damaged input
        raise ArchiveError(f"damaged ({first_line(error)})", "make or copy it again") from error


def open_plain(content: bytes) -> zipfile.ZipFile:
    """An undamaged zip archive without compression, so that reading its entries takes no more memory than its size.

    Raises:
        ArchiveError: the archive is compressed or damaged.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ArchiveError("a packed archive, not a file of torch.save", "save it with torch.save")
        if sum(entry.file_size for entry in entries) > len(content):
            raise ArchiveError("its entries claim more bytes than it has", "make or copy it again")
        if (damaged := archive.testzip()) is not None:  # torch itself does not compare checksums
            raise ArchiveError(f"damaged: the checksum of {printable(damaged, 60)} is wrong", "make or copy it again")
    except ArchiveError:
        raise
    except Exception as error:  # zipfile raises almost any type on damaged input
        raise ArchiveError(f"cut short, or not of torch.save ({first_line(error)})", "make or copy it again") from error
    return archive


def _require_plain(pickled: bytes) -> None:
    """Refuse a pickle that refers to foreign globals, or that may load for ever, without running it.

    Follows the pickle's stack. An element is the name of the opcode that made it, or the name of a global.
    """
    stack: list[str] = []
    memo: dict[Any, str] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        name = opcode.name
        if name not in OPCODES:
            raise pickle.UnpicklingError(f"opcode {name}")
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
            continue
        if name in ("BINGET", "LONG_BINGET"):
            name = memo[argument]
            if name in TUPLES:
                raise pickle.UnpicklingError("a shared tuple")
        elif name == "GLOBAL":
            name = str(argument)
        elif name == "REDUCE":
            _require_plain_call(*stack[-2:])
        taken = _pop(stack, opcode)
        if name.startswith("SETITEM") and not KEYS.issuperset(taken[::2]):
            raise pickle.UnpicklingError("a dict with other keys than texts and small numbers")
        if name not in FUNCTIONS | STORAGES | OPCODES:
            raise ArchiveError(
                f"refers to {printable(name, 60)}, which no state dict needs; nothing in it was run",
                "use weights from a source you trust, saved with torch.save(model.state_dict(), …)",
            )
        stack.extend([name] * len(opcode.stack_after))


def _require_plain_call(function: str, arguments: str) -> None:
    if function not in FUNCTIONS or (function == "collections OrderedDict" and arguments != "EMPTY_TUPLE"):
        raise pickle.UnpicklingError("a call that no state dict needs")


def _pop(stack: list[str], opcode: pickletools.OpcodeInfo) -> list[str]:
    """Take what `opcode` uses from the stack, and return it; without the dict or list that it changes."""
    taken = []
    if pickletools.markobject in opcode.stack_before:
        while (top := stack.pop()) != "MARK":
            taken.append(top)
    else:
        taken = [stack.pop() for _ in opcode.stack_before[1:]]
    if opcode.stack_before and opcode.stack_before[0] is not pickletools.markobject:
        stack.pop()
    return taken[::-1]


def first_line(error: Exception) -> str:
    """The beginning of an error's message, or its type if it has none."""
    return printable(error, 120) or type(error).__name__
