"""Checkpoints: safetensors files, whose metadata holds the state as JSON, and the SHA-256 of the file."""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from mnist_accel.errors import OutputError, UserError
from mnist_accel.files.atomic import publish
from mnist_accel.files.exported import metadata_of
from mnist_accel.files.untrusted import read_limited, refusing

FORMAT_VERSION = "3"
FOLDER = "checkpoints"
LARGEST_FILE = 2**28  # bytes. The largest checkpoint here has 8 MB.
SHA256, NO_SHA256 = b'"sha256":"%s"', b"0" * 64
"""The field of the metadata, and its value while the SHA-256 is computed. Quotes in the state are escaped there."""
NAME = re.compile(r"checkpoint-(\d{6,12})\.safetensors")


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """The verified content of a checkpoint: tensors on the CPU by name, and the state as JSON."""

    path: Path
    tensors: Mapping[str, Tensor]
    state: bytes


class CheckpointFolder:
    """The checkpoints of one run in `folder`, which the first `save` makes; its parent is not made."""

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder, self.keep = folder, keep

    def numbered(self) -> list[tuple[int, Path]]:
        """The checkpoints with their numbers, oldest first, valid or not."""
        if not os.path.isdir(self.folder):  # noqa: PTH112  # Path.is_dir raises if the name is too long
            return []
        return sorted((int(match[1]), path) for path in self.folder.iterdir() if (match := NAME.fullmatch(path.name)))

    def save(self, tensors: Mapping[str, Tensor], state: bytes) -> Path:
        """Write the newest checkpoint, verify it, and only then delete all but the newest `keep`.

        Raises OutputError if the disk is full, read-only or gone; earlier checkpoints are then unchanged.
        """
        content = encode(tensors, state)
        hint = "make room or give another --output-dir; earlier checkpoints are intact: continue with --resume auto"
        with refusing(OutputError, f"cannot write a checkpoint in {self.folder}", hint):
            self.folder.mkdir(exist_ok=True)
            known = self.numbered()
            path = self.folder / f"checkpoint-{(known[-1][0] if known else 0) + 1:06d}.safetensors"
            publish({path: content})
            read(path)
            for _, older in known[: len(known) + 1 - self.keep]:
                older.unlink()
        return path

    def newest_valid(self, notice: Callable[[str], None]) -> Checkpoint | None:
        """The newest valid checkpoint, or None; `notice` is called with the name of each damaged one."""
        for _, path in reversed(self.numbered()):
            try:
                return read(path)
            except CheckpointError as error:
                notice(f"{error.message}; trying the one before")
        return None

    def clear(self) -> None:
        """Delete the checkpoints of a finished run."""
        for _, path in reversed(self.numbered()):
            path.unlink()
        with contextlib.suppress(OSError):  # a file of somebody else is in it
            self.folder.rmdir()


def encode(tensors: Mapping[str, Tensor], state: bytes) -> bytes:
    """The bytes of a checkpoint."""
    metadata = {"format_version": FORMAT_VERSION, "state": state.decode(), "sha256": NO_SHA256.decode()}
    content: bytes = safetensors.torch.save(dict(tensors), metadata)
    return content.replace(SHA256 % NO_SHA256, SHA256 % hashlib.sha256(content).hexdigest().encode(), 1)


def read(path: Path) -> Checkpoint:
    """The verified content of the checkpoint at `path`. Raises CheckpointError if it is missing or damaged."""
    hint = "--resume auto takes the newest valid one"
    with refusing(CheckpointError, f"{path}: no such checkpoint, or it is damaged", hint):
        content = read_limited(path, LARGEST_FILE)
        metadata = metadata_of(content)
        if metadata["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {metadata['format_version']}, not {FORMAT_VERSION}")
        unsigned = content.replace(SHA256 % metadata["sha256"].encode(), SHA256 % NO_SHA256, 1)
        if hashlib.sha256(unsigned).hexdigest() != metadata["sha256"]:
            raise ValueError("its SHA-256 is wrong")
        return Checkpoint(path, safetensors.torch.load(content), metadata["state"].encode())
