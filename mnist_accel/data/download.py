"""Fetching a data set's files: by one process of a machine, with time-outs, checked before they appear."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from mnist_accel.errors import DataError, OutputError
from mnist_accel.files.atomic import write_whole

CONNECT_SECONDS = 5.0
"""For one address to answer, and between two pieces of a file."""
GIVE_UP_SECONDS = 12.0
"""For the first byte from any mirror: with the imports, a machine without a network knows within 15 s."""
LARGEST_FILE = 64 * 2**20
"""Bytes; the largest real one has 18 MB."""


class Progress(Protocol):
    """Shown a download as it goes on."""

    def __call__(self, file: str, received: int, total: int | None) -> None: ...


def fetch(
    torchvision_class: str,
    folder: Path,
    *,
    has_all: Callable[[], bool],
    is_whole: Callable[[str, bytes], bool],
    progress: Progress,
) -> None:
    """Download and unpack the files that torchvision lists for a data set, into `folder`.

    Processes of one machine take turns by a file lock: the first one fetches; the others find the files there, or
    leave with the error that the first one met while they waited.

    Args:
        torchvision_class: name of the class in torchvision.datasets that lists mirrors, files and MD5 sums.
        folder: torchvision's folder of the unpacked files.
        has_all: whether all files are there and whole.
        is_whole: whether an unpacked file holds what it should.
        progress: shown the bytes.

    Raises:
        DataError: no mirror gave the files.
    """
    began_waiting = time.time()
    lock = folder / ".download.lock"
    failure = folder / ".download.failed"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if has_all():
                return
            _leave_if_failed(failure, began_waiting)
            try:
                _fetch_files(torchvision_class, folder, is_whole, progress)
            except DataError as error:
                report = {"time": time.time(), "message": error.message, "hint": error.hint}
                write_whole(failure, json.dumps(report).encode())
                raise
            failure.unlink(missing_ok=True)
    except OutputError as error:
        raise DataError(error.message, error.hint) from error
    except OSError as error:
        raise DataError(
            f"{torchvision_class} is not in {folder}, and nothing can be written there ({error.strerror or error})",
            "give another --data-dir",
        ) from error


def _leave_if_failed(failure: Path, since: float) -> None:
    """Raise the error that another process of this machine met after `since` (seconds since the epoch)."""
    try:
        report = json.loads(failure.read_text())
        is_ours, message, hint = report["time"] >= since, report["message"], report["hint"]
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return  # none, or one that cannot be read: then this process finds out for itself
    if is_ours:
        raise DataError(message, hint)


def _fetch_files(
    torchvision_class: str, folder: Path, is_whole: Callable[[str, bytes], bool], progress: Progress
) -> None:
    deadline = time.monotonic() + GIVE_UP_SECONDS
    try:
        import torchvision.datasets  # here alone: it takes seconds, and most runs have their data
    except (ImportError, RuntimeError, OSError) as error:
        raise DataError(
            f"{torchvision_class} is not in {folder}, and torchvision, which knows where to get it, fails ({error})",
            "run mnist-accel doctor",
        ) from error

    dataset = getattr(torchvision.datasets, torchvision_class)
    for packed_name, md5 in dataset.resources:
        file = packed_name.removesuffix(".gz")
        if (folder / file).is_file() and is_whole(file, (folder / file).read_bytes()):
            continue
        reasons = []
        for mirror in dataset.mirrors:
            try:
                packed = _download(mirror + packed_name, packed_name, deadline, progress)
                if hashlib.md5(packed, usedforsecurity=False).hexdigest() != md5:
                    raise ValueError(f"another file was sent ({len(packed)} bytes)")
                content = gzip.decompress(packed)
                if not is_whole(file, content):
                    raise ValueError("the file that was sent is damaged inside")
            except (OSError, ValueError, EOFError, zlib.error, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                reasons.append(f"{mirror}: {reason}")
                continue
            write_whole(folder / file, content)
            deadline = float("inf")  # there is a network: from here only silence counts
            break
        else:
            names = ", ".join(name for name, _ in dataset.resources)
            raise DataError(
                f"{file} is not in {folder} and could not be downloaded ({'; '.join(reasons)})",
                f'On a machine with a network run: python -c "from torchvision.datasets import {torchvision_class}; '
                f"{torchvision_class}('data', download=True)\" and copy data/{torchvision_class}/raw here, or put "
                f"{names} into {folder}.",
            )


def _download(url: str, file: str, deadline: float, progress: Progress) -> bytes:
    """The bytes at `url`; OSError when nothing comes in time."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"no answer within {GIVE_UP_SECONDS:.0f} s")
    with _open(url, left) as response:
        total = response.headers.get("Content-Length")
        received = bytearray()
        while piece := response.read(1 << 16):
            received += piece
            if len(received) > LARGEST_FILE:
                raise ValueError(f"more than {LARGEST_FILE} bytes were sent")
            progress(file, len(received), int(total) if total and total.isdigit() else None)
    return bytes(received)


def _open(url: str, seconds: float) -> http.client.HTTPResponse:
    """The response to a request for `url`, or OSError after `seconds` at the latest.

    A thread of its own, because looking a name up has no time-out: without a network it can hang for a minute.
    """
    outcome: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "mnist-accel"})
        try:
            outcome.put(urllib.request.urlopen(request, timeout=min(CONNECT_SECONDS, seconds)))
        except urllib.error.HTTPError as error:
            error.close()
            outcome.put(OSError(f"answered {error.code} {error.reason}"))
        except Exception as error:  # handed to the caller below
            outcome.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        result = outcome.get(timeout=min(seconds, GIVE_UP_SECONDS))
    except queue.Empty:
        raise TimeoutError(f"no answer within {min(seconds, GIVE_UP_SECONDS):.0f} s") from None
    if isinstance(result, Exception):
        raise result
    return result
