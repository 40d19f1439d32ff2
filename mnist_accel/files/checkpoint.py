"""Checkpoints on disk: folders that appear whole, prove whole, and go only when a newer one has been proven."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnist_accel.errors import OutputError, UserError
from mnist_accel.files import pth as archive
from mnist_accel.files.atomic import sync_folder
from mnist_accel.files.pth import ArchiveError

FORMAT_VERSION = 1
FOLDER = "checkpoints"
STATE, MANIFEST = "state.pt", "manifest.json"
_NAME = re.compile(r"checkpoint-(\d{6,})")


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or of another run."""


def save(folder: Path, state: dict[str, Any], keep: int) -> Path:
    """Write `state` as the newest checkpoint in `folder` and remove all but the newest `keep`.

    The files are written under a temporary name, flushed to the disk, and renamed together; a crash at any instant
    leaves the earlier checkpoints and at most a temporary folder, which the next save removes.

    Args:
        folder: made if it is missing; its parent is not.
        state: tensors, dicts, lists and plain values.
        keep: at least 1.

    Raises:
        OutputError: the disk is full, read-only or gone; earlier checkpoints are as they were.
    """
    content = archive.write(state | {"format_version": FORMAT_VERSION})
    facts = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest = json.dumps({"format_version": FORMAT_VERSION, "files": {STATE: facts}}, indent=2).encode()
    try:
        folder.mkdir(exist_ok=True)
        for leftover in folder.glob(".*.tmp"):
            shutil.rmtree(leftover)
        known = numbered(folder)
        name = f"checkpoint-{(known[-1][0] if known else 0) + 1:06d}"
        temporary = folder / f".{name}.tmp"
        temporary.mkdir()
        try:
            for file, data in ((STATE, content), (MANIFEST, manifest)):
                with (temporary / file).open("wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
            sync_folder(temporary)
            temporary.rename(folder / name)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)  # the error that counts is the first one
            raise
        sync_folder(folder)
        if (damage := damage_of(folder / name)) is not None:
            raise OutputError(f"the checkpoint {folder / name} {damage} just after it was written", "check the disk")
        whole = 1
        for _, older in reversed(known):
            if whole >= keep:
                _remove(older)
            elif damage_of(older) is None:
                whole += 1
    except OSError as error:
        raise OutputError(
            f"cannot write a checkpoint in {folder}: {error.strerror or error}",
            "make room or give another --output-dir; earlier checkpoints are intact: continue with --resume auto",
        ) from error
    return folder / name


def numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in `folder` with their numbers, oldest first; whole or not."""
    if not folder.is_dir():
        return []
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def damage_of(path: Path) -> str | None:
    """What is wrong with a checkpoint by its manifest, or None when it is whole."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = manifest["files"][STATE]
        if manifest["format_version"] != FORMAT_VERSION:
            return f"has format version {manifest['format_version']!r}, not {FORMAT_VERSION}"
        size = (path / STATE).stat().st_size
        if size != expected["bytes"] or size > archive.LARGEST_FILE:
            return f"is cut short: {STATE} has {size:,} bytes, not {expected['bytes']:,}"
        content = (path / STATE).read_bytes()
        if hashlib.sha256(content).hexdigest() != expected["sha256"]:
            return f"is damaged: {STATE} has another SHA-256"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"is incomplete or unreadable ({type(error).__name__}: {archive.first_line(error)})"
    return None


def newest_whole(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint in `folder` that proves whole, or None; damaged ones are told of."""
    for _, path in reversed(numbered(folder)):
        damage = damage_of(path)
        if damage is None:
            return path
        tell(f"{path} {damage}; trying the one before")
    return None


def read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint.

    Raises:
        CheckpointError: it is not there, or does not prove whole.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint", "give its folder, the run's folder, or --resume auto")
    if (damage := damage_of(path)) is not None:
        raise CheckpointError(f"{path} {damage}", "--resume auto takes the newest that is whole")
    try:
        state = archive.read((path / STATE).read_bytes())
    except ArchiveError as error:
        raise CheckpointError(f"{path / STATE}: {error.message}", error.hint) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path / STATE}: holds a {type(state).__name__}, not a run's state", "name another")
    return state


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    for _, path in reversed(numbered(folder)):
        _remove(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _remove(path: Path) -> None:
    """Take a checkpoint away; one that is half removed no longer has its name."""
    doomed = path.with_name(f".{path.name}.tmp")
    path.rename(doomed)
    shutil.rmtree(doomed)
