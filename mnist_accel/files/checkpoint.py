"""Writes checkpoints atomically, verifies them, and deletes old ones only after the new one is verified.

A checkpoint is a folder with tensors (safetensors), JSON, and a manifest of sizes and SHA-256. None can hold code.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from mnist_accel.errors import OutputError, UserError, printable
from mnist_accel.files.atomic import publish, sync_folder
from mnist_accel.files.untrusted import read_limited

FORMAT_VERSION = 2
FOLDER = "checkpoints"
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
LARGEST_FILE = 2**28
"""Bytes. The largest checkpoint here has 8 MB."""
_NAME = re.compile(r"checkpoint-(\d{6,12})")


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """The verified content of a checkpoint.

    Attributes:
        tensors: by name, on the CPU.
        state: JSON.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    state: bytes


class CheckpointFolder:
    """The checkpoints of one run.

    Args:
        folder: made by the first `save`; its parent is not made.
        keep: number of valid checkpoints to keep, at least 1.
    """

    def __init__(self, folder: Path, keep: int = 1) -> None:
        self.folder, self.keep = folder, keep
        self._valid: set[Path] = set()  # verified by this object

    def numbered(self) -> list[tuple[int, Path]]:
        """The checkpoints with their numbers, oldest first, valid or not."""
        if not self.folder.is_dir():
            return []
        return sorted((int(match[1]), path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name)))

    def save(self, tensors: Mapping[str, Tensor], state: bytes) -> Path:
        """Write the newest checkpoint, verify it, and delete all but the newest `keep` valid ones.

        A crash at any instant leaves the earlier checkpoints, and at most a temporary folder, which the next `save`
        deletes.

        Raises:
            OutputError: the disk is full, read-only or gone; earlier checkpoints are unchanged.
        """
        contents = {TENSORS: safetensors.torch.save(dict(tensors)), STATE: state}
        contents[MANIFEST] = manifest(contents)
        try:
            self.folder.mkdir(exist_ok=True)
            for leftover in self.folder.glob(".*.tmp"):
                _delete(leftover)
            known = self.numbered()
            path = self.folder / f"checkpoint-{(known[-1][0] if known else 0) + 1:06d}"
            _write_folder(path, contents)
            if (damage := damage_of(path)) is not None:
                raise OutputError(f"just written, but {damage}", "check the disk")
            valid = {path}
            for _, older in reversed(known):
                if len(valid) >= self.keep:
                    remove(older)
                elif older in self._valid or damage_of(older) is None:
                    valid.add(older)
            self._valid = valid
        except (OSError, OutputError) as error:
            reason = getattr(error, "message", None) or getattr(error, "strerror", None) or error
            raise OutputError(
                f"cannot write a checkpoint in {self.folder} ({reason})",
                "make room or give another --output-dir; earlier checkpoints are intact: continue with --resume auto",
            ) from error
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
            remove(path)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def read(path: Path) -> Checkpoint:
    """The verified content of the checkpoint at `path`.

    Raises:
        CheckpointError: it is missing, damaged, or of another format version.
    """
    try:
        contents = {name: read_limited(path / name, LARGEST_FILE) for name in (TENSORS, STATE)}
        if read_limited(path / MANIFEST, LARGEST_FILE) != manifest(contents):
            raise ValueError(f"its files differ from {MANIFEST}")
        return Checkpoint(path, safetensors.torch.load(contents[TENSORS]), contents[STATE])
    except Exception as error:  # safetensors raises several types
        reason = printable(getattr(error, "strerror", None) or error, 120)
        raise CheckpointError(
            f"{path}: no such checkpoint, or it is damaged ({reason})", "--resume auto takes the newest valid one"
        ) from error


def damage_of(path: Path) -> str | None:
    """The damage of a checkpoint, or None if it is valid."""
    try:
        read(path)
    except CheckpointError as error:
        return error.message
    return None


def manifest(contents: Mapping[str, bytes]) -> bytes:
    """The manifest of a checkpoint's files: their sizes and SHA-256."""
    files = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
    return json.dumps({"format_version": FORMAT_VERSION, "files": files}, indent=2).encode()


def remove(path: Path) -> None:
    """Delete a checkpoint. It is renamed first, so that a half deleted one is not taken for a checkpoint."""
    doomed = path.with_name(f".{path.name}.tmp")
    path.rename(doomed)
    _delete(doomed)


def _write_folder(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a new folder that appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.mkdir()
    try:
        publish({temporary / name: content for name, content in contents.items()})
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # nothing is there after the renaming
    sync_folder(path.parent)


def _delete(path: Path) -> None:
    """Delete a folder, file or link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
