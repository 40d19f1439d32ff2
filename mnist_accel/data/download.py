"""Downloads the packed files of a data set: once on each machine, with time-outs and checksums."""

from __future__ import annotations

import gzip
import hashlib
import os
import queue
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from mnist_accel.errors import DataError, OutputError, printable
from mnist_accel.files.atomic import write_whole

SILENCE_SECONDS = 5.0
"""The longest wait for a connection, and for the next bytes of a file."""
FIRST_BYTE_SECONDS = 12.0
"""The longest wait for the first bytes. It includes looking up the host name, for which there is no time-out."""
LARGEST_FILE = 64 * 2**20
"""Bytes; the largest real file has 47 MB."""


class Progress(Protocol):
    """Called while a file is downloaded; `total` is None if the server does not tell the size."""

    def __call__(self, file: str, received: int, total: int | None) -> None: ...


def fetch(
    name: str, url: str, files: Mapping[str, str], folder: Path, is_complete: Callable[[], bool], progress: Progress
) -> None:
    """Download packed files and write them unpacked into `folder`, which is created only when a file has arrived.

    Of the processes of one machine, one downloads and the others wait for it.

    Args:
        name: of the data set, for the error message.
        url: the address of the folder of the files.
        files: names (….gz) and MD5 sums of the packed files.
        folder: for the unpacked files.
        is_complete: whether `folder` contains all files of the data set, undamaged.

    Raises:
        DataError: a file cannot be downloaded or written.
    """
    from filelock import FileLock, Timeout  # here, for the start-up time

    # In the folder for temporary files, so that no lock file stays beside the data; each user has a lock of their own.
    user = getattr(os, "getuid", lambda: "")()
    key = hashlib.sha256(f"{user} {folder.absolute()}".encode(errors="surrogateescape")).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"mnist-accel-{key}.lock")
    try:
        lock.acquire(timeout=0)
        has_waited = False
    except Timeout:
        lock.acquire()
        has_waited = True
    try:
        if is_complete():
            return
        if has_waited:
            raise _error(name, url, folder, "another process of this machine tried in vain")
        for file, md5 in files.items():
            try:
                content = gzip.decompress(_download(url + file, file, md5, progress))
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(folder / file.removesuffix(".gz"), content)
            except (OSError, OutputError, ValueError, EOFError, zlib.error) as error:
                raise _error(name, url, folder, printable(error, 160)) from error
    finally:
        lock.release()


def _error(name: str, url: str, folder: Path, reason: str) -> DataError:
    return DataError(
        f"{name} is not in {folder} and could not be downloaded ({reason})",
        f"check --data-dir and the network, or copy the four .gz files of {url} into that folder",
    )


class _Bar:
    """A progress bar as pooch calls it; hands the number of bytes received so far to another thread."""

    total = 0  # set by pooch; 0 if the server does not tell the size

    def __init__(self, report: Callable[[int], None]) -> None:
        self.report, self.received = report, 0

    def update(self, size: int) -> None:
        self.received += size
        if self.received > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE:,} bytes were sent")
        self.report(min(self.received, self.total or self.received))  # pooch counts whole chunks, also the last one

    def reset(self) -> None:
        self.received = 0

    def close(self) -> None:
        pass


def _download(url: str, file: str, md5: str, progress: Progress) -> bytes:
    """The bytes at `url`, which have this MD5.

    A thread downloads, because looking up a host name has no time-out and can take a minute without a network.

    Raises:
        OSError: no connection, or no answer in time.
        ValueError: other bytes were sent.
    """
    import pooch  # type: ignore[import-untyped]  # here, for the start-up time

    pooch.get_logger().setLevel("WARNING")
    events: queue.SimpleQueue[int | bytes | Exception] = queue.SimpleQueue()
    bar = _Bar(events.put)

    def download() -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=SILENCE_SECONDS)
                path = pooch.retrieve(url, f"md5:{md5}", file, folder, downloader=downloader)
                events.put(Path(path).read_bytes())
        except Exception as error:  # raised again below, in the thread that waits
            events.put(error)

    threading.Thread(target=download, daemon=True).start()
    limit: float | None = FIRST_BYTE_SECONDS
    while True:
        try:
            event = events.get(timeout=limit)
        except queue.Empty:
            raise TimeoutError(f"no answer from {url} within {limit:.0f} s") from None
        if isinstance(event, Exception):
            raise event
        if isinstance(event, bytes):
            return event
        limit = None  # from here, the time-out between two pieces counts
        progress(file, event, bar.total or None)
