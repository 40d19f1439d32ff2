"""Writes files so that they appear complete or not at all; several files can be published together."""

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mnist_accel.errors import OutputError, UserError
from mnist_accel.files.untrusted import refusing


def exists(path: Path) -> bool:
    """Whether there is anything at `path`. Unlike Path.exists, it raises no error if the name is too long."""
    return os.path.exists(path)  # noqa: PTH110 see above


def publish(contents: Mapping[Path, bytes]) -> None:
    """Write files. None of them is replaced before all are safely on the disk.

    Even after a power failure, a file has the old content or the new one. Raises OutputError if that is not possible.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.unlink(missing_ok=True)  # left by a process that was killed here
            with temporary.open("xb") as file:
                staged[path] = temporary
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            temporary.replace(path)
        for folder in {path.parent for path in contents}:
            _sync_folder(folder)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}", "make room or give another folder") from error
    finally:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot do this for folders
            raise
    finally:
        os.close(descriptor)


def require_writable(folder: Path, option: str = "--output-dir") -> None:
    """Create `folder`, which `option` names. Raises UserError if no file can be written in it."""
    with refusing(UserError, f"cannot write in the output folder {folder}", f"give another {option}"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 4096)
