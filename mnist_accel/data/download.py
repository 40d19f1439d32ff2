"""Downloads the packed files of a data set: once on each machine, with time-outs and checksums."""

import gzip
import hashlib
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from mnist_accel.errors import DataError, OutputError, printable
from mnist_accel.files.atomic import write_whole

SILENCE_SECONDS = 5
"""The longest wait for a connection, and for the next bytes of a file."""
ANSWER_SECONDS = 12
"""The longest wait for an answer. It includes looking up the host name, for which there is no time-out."""
LARGEST_FILE = 64 * 2**20
"""Bytes; the largest real file has 47 MB."""


def fetch(name: str, url: str, files: Mapping[str, str], folder: Path, is_complete: Callable[[], bool]) -> None:
    """Download packed files and write them unpacked into `folder`, which is created only when a file has arrived.

    Of the processes of one machine, one downloads and the others wait for it.

    Args:
        name: of the data set, for the error message.
        url: the address of the folder of the files.
        files: names (….gz) and MD5 sums of the packed files.
        is_complete: whether `folder` contains all files of the data set, undamaged.

    Raises:
        DataError: a file cannot be downloaded or written.
    """
    from filelock import FileLock, Timeout  # here, for the start-up time

    # In the folder for temporary files, so that no lock file stays beside the data; each user has a lock of their own.
    key = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    lock = FileLock(Path(tempfile.gettempdir()) / f"mnist-accel-{getattr(os, 'getuid', str)()}-{key}.lock")
    try:
        try:
            held, has_waited = lock.acquire(timeout=0), False
        except Timeout:
            held, has_waited = lock.acquire(), True
        with held:
            if is_complete():
                return
            if has_waited:
                raise OSError("the attempt of another process of this machine failed")
            for file, md5 in files.items():
                content = gzip.decompress(_download(url + file, md5))
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(folder / file.removesuffix(".gz"), content)
    except (OSError, OutputError, ValueError, EOFError, zlib.error) as error:
        # The texts of requests repeat the address several times.
        cause = str(getattr(error.args[0] if error.args else None, "reason", error))
        reason = printable(cause.partition("): ")[2] or cause, 160)
        raise DataError(
            f"{name} is not in {folder} and could not be downloaded ({reason})",
            f"check --data-dir and the network, or copy the four .gz files of {url} into that folder",
        ) from error


def _download(url: str, md5: str) -> bytes:
    """The bytes at `url`, which have this MD5.

    A thread downloads, because looking up a host name can take a minute without a network.

    Raises:
        OSError: no connection, or no answer in time.
        ValueError: other bytes were sent.
    """
    import pooch  # type: ignore[import-untyped]  # here, for the start-up time

    pooch.get_logger().setLevel("WARNING")
    has_answered = threading.Event()
    outcome: Future[bytes] = Future()

    def answer(response: Any, **_: object) -> None:
        has_answered.set()
        if int(response.headers.get("Content-Length", 0)) > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE:,} bytes were sent")

    def download() -> None:
        try:
            with tempfile.TemporaryDirectory() as folder:
                downloader = pooch.HTTPDownloader(timeout=SILENCE_SECONDS, hooks={"response": answer})
                path = pooch.retrieve(url, f"md5:{md5}", path=folder, downloader=downloader)
                outcome.set_result(Path(path).read_bytes())
        except Exception as error:  # raised again below, in the thread that waits
            outcome.set_exception(error)
        has_answered.set()

    threading.Thread(target=download, daemon=True).start()
    if not has_answered.wait(ANSWER_SECONDS):
        raise TimeoutError(f"no answer from {url} within {ANSWER_SECONDS} s")
    return outcome.result()
