"""Reads many pictures by several processes, and keeps them in a cache in the user's cache folder."""

import hashlib
import io
import json
import pickle
import queue
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import platformdirs

from mnist_accel import pictures
from mnist_accel.errors import OutputError
from mnist_accel.files.atomic import write_whole
from mnist_accel.hardware.cores import available_cores
from mnist_accel.pictures.picture_file import PictureError
from mnist_accel.pictures.predict import read_character

CHUNK = 100
"""Pictures that a process reads before it answers."""
LEAST_PER_PROCESS = 1000
"""A further process, which starts in half a second, is not worth it for fewer pictures."""

Answer = npt.NDArray[np.uint8] | str
Found = tuple[npt.NDArray[np.uint8], dict[int, str]]


def read(folder: Path, names: Sequence[str], progress: Callable[[int, int], None]) -> Found:
    """The pictures `names` below `folder`: from the cache, if names, sizes and times of all files are as they were.

    Args:
        progress: hears the numbers of finished and of all pictures.

    Returns:
        uint8 (N, 28, 28), white on black; and for each picture that cannot be read its index and the reason.
    """
    cache = platformdirs.user_cache_path("mnist-accel") / f"{_sha256(str(folder.resolve()))[:16]}.npz"
    key = _sha256(repr([_code(), *((name, _version(folder / name)) for name in names)]))
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        kept = np.load(io.BytesIO(cache.read_bytes()))
        if str(kept["key"]) == key:
            return kept["images"], {int(index): text for index, text in json.loads(str(kept["errors"])).items()}
    answers: list[Answer] = []
    for chunk in _answers([[folder / name for name in names[at : at + CHUNK]] for at in range(0, len(names), CHUNK)]):
        answers += chunk
        progress(len(answers), len(names))
    errors = {index: answer for index, answer in enumerate(answers) if isinstance(answer, str)}
    blank = np.zeros((28, 28), np.uint8)
    images = np.stack([blank if isinstance(answer, str) else answer for answer in answers] or [blank])[: len(names)]
    content = io.BytesIO()
    np.savez(content, key=np.array(key), images=images, errors=np.array(json.dumps(errors)))
    with suppress(OSError, OutputError):  # without a cache, the next run reads the pictures again
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, content.getvalue())
    return images, errors


def _answers(chunks: list[list[Path]]) -> Iterator[list[Answer]]:
    """The pictures of each chunk, in order.

    The processes are no children of multiprocessing: those import the main program again, which may train a model.
    """
    processes = min(available_cores(), len(chunks) * CHUNK // LEAST_PER_PROCESS)
    if processes < 2:
        yield from map(_read, chunks)
        return
    command = [sys.executable, "-c", "from mnist_accel.data import picture_reader; picture_reader.serve()"]
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()

    def ask(chunk: list[Path]) -> list[Answer]:
        process = idle.get()
        assert process.stdin
        assert process.stdout
        pickle.dump(chunk, process.stdin)
        process.stdin.flush()
        answers: list[Answer] = pickle.load(process.stdout)
        idle.put(process)
        return answers

    with ExitStack() as stack:
        for _ in range(processes):
            started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            idle.put(stack.enter_context(started))
        pool = ThreadPoolExecutor(processes)
        stack.callback(pool.shutdown, cancel_futures=True)
        yield from pool.map(ask, chunks)


def serve() -> None:
    """Answer lists of paths on stdin with the pictures, until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the program that asks
    with suppress(EOFError, BrokenPipeError):
        while True:
            pickle.dump(_read(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _read(paths: list[Path]) -> list[Answer]:
    answers: list[Answer] = []
    for path in paths:
        try:
            answers.append(read_character(path))
        except PictureError as error:
            answers.append(error.message)
    return answers


def _code() -> list[str]:
    """What decides how a picture is read besides its file."""
    sources = sorted(Path(pictures.__file__).parent.glob("*.py"))
    return [PIL.__version__, *(_sha256(path.read_text(encoding="utf-8")) for path in sources)]


def _version(path: Path) -> tuple[int, ...]:
    """Size and times of a file: its content has changed only if they have. Empty if there is no such file."""
    with suppress(OSError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return ()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
