"""Safe reader for untrusted files of torch.save (.pth), and their writer."""

import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

from mnist_accel.errors import WeightsError, printable

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


def _require_plain(pickled: bytes) -> None:  # noqa: C901
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
            if name not in FUNCTIONS | STORAGES:
                raise pickle.UnpicklingError(f"refers to {printable(name, 60)}; nothing in it was run")
        elif name == "REDUCE":
            function, arguments = stack[-2:]
            if function not in FUNCTIONS or (function == "collections OrderedDict" and arguments != "EMPTY_TUPLE"):
                raise pickle.UnpicklingError("a call that no state dict needs")
        taken = _pop(stack, opcode)
        if name.startswith("SETITEM") and not KEYS.issuperset(taken[::2]):
            raise pickle.UnpicklingError("a dict with other keys than texts and small numbers")
        stack.extend([name] * len(opcode.stack_after))


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
