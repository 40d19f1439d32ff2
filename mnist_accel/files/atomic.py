"""Files that appear complete or not at all, and a set of files that is published together."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mnist_accel.errors import OutputError, UserError


def exists(path: Path) -> bool:
    """Whether there is anything at `path`; unlike Path.exists, no error where the name is too long."""
    return os.path.exists(path)  # noqa: PTH110


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds either what it held before or all of it, also after a power cut.

    Raises:
        OutputError: the folder is gone, read-only or full.
    """
    publish({path: content})


def publish(contents: Mapping[Path, bytes]) -> None:
    """Write several files; none of them is replaced before all are safely on the disk.

    Raises:
        OutputError: nothing was replaced; the temporary files are gone.
    """
    staged: dict[Path, Path] = {}
    first = next(iter(contents))
    try:
        for path, content in contents.items():
            for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a run that was killed here
                leftover.unlink()
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            staged[path] = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staged[path].chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        for path, temporary in staged.items():
            temporary.replace(path)
        for folder in {path.parent for path in contents}:
            sync_folder(folder)
    except OSError as error:
        kept = "; nothing was replaced" if len(staged) < len(contents) or staged[first].exists() else ""
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", f"make room or give another folder{kept}"
        ) from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no such thing for folders
            raise
    finally:
        os.close(descriptor)


def require_writable(folder: Path, option: str = "--output-dir") -> None:
    """Create `folder`, which `option` names, and prove that a file can be written in it.

    Raises:
        UserError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        raise UserError(
            f"cannot write in the output folder {folder}: {error.strerror or error}", f"give another {option}"
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
