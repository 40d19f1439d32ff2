"""`--dataset folder:DIR`: a data set of pictures, one sub-folder for each class. What was read is kept in a cache."""

import hashlib
import io
import os
import pickle
import signal
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import platformdirs

from mnist_accel import pictures
from mnist_accel.data.digits import DataSet, Digits, hold_out, select
from mnist_accel.errors import DataError, OutputError
from mnist_accel.files.atomic import write_whole
from mnist_accel.hardware.cores import available_cores
from mnist_accel.pictures.picture_file import SUFFIXES, PictureError
from mnist_accel.pictures.predict import read_character

CHUNK = 100  # pictures that a process reads before it answers
LEAST_PER_PROCESS = 1000  # a further process, which starts in half a second, is not worth it for fewer pictures

Answer = npt.NDArray[np.uint8] | str  # a picture, uint8 (28, 28), or the reason why it cannot be read
Heard = Callable[[int, int], None]  # called with the numbers of finished and of all pictures


def load(name: str, folder: Path, notice: Callable[[str], None], progress: Heard, *, skip_damaged: bool) -> DataSet:
    """Read pictures from DIR/CLASS, or from DIR/train/CLASS and DIR/test/CLASS, as torchvision's ImageFolder does.

    Each picture shows one character and is converted to the form of MNIST's images. Raises DataError if there are fewer
    than two classes, a class has no picture, or more than 1% of all pictures cannot be read.
    """
    parts = [folder / "train", folder / "test"] if (folder / "train").is_dir() else [folder]
    classes = _same_classes(name, parts)
    folders = [part / class_name for part in parts for class_name in classes]
    listed = [sorted(path for path in inside.glob("*") if path.suffix.lower() in SUFFIXES) for inside in folders]
    files = [str(path.relative_to(folder)) for inside in listed for path in inside]
    images, errors = read(folder, files, progress)
    if errors:
        shown = "; ".join(f"{files[index]}: {text}" for index, text in list(errors.items())[:3])
        text = f"{name}: {len(errors)} of {len(files):,} pictures cannot be read: {shown}"
        if len(errors) > 0.01 * len(files) and not skip_damaged:
            raise DataError(text, "replace or delete them, or leave them out by --skip-damaged")
        notice(f"{text}. They are left out")
    places = np.repeat(np.arange(len(folders)), [len(inside) for inside in listed])  # part × classes + class
    sound = np.delete(np.arange(len(files)), list(errors))
    images, places = images[sound], places[sound]
    if missing := set(range(len(folders))) - set(places.tolist()):
        text = f"{name}: no picture in {folders[min(missing)]}"
        raise DataError(text, "give each class pictures, or delete its folder")
    digest = hashlib.sha256()
    for index, image in zip(sound, images, strict=True):
        digest.update(os.fsencode(files[index]) + image.tobytes())
    digits = Digits(images, places % len(classes), np.array(files, dtype=np.object_)[sound])
    is_test, has_test_part = places >= len(classes), len(parts) == 2
    train, test = (select(digits, ~is_test), select(digits, is_test)) if has_test_part else hold_out(name, digits)
    checksums = {"pictures": f"sha256:{digest.hexdigest()}"}
    return DataSet(name, train, test, tuple(classes), str(folder), checksums, has_test_part)


def _same_classes(name: str, parts: list[Path]) -> list[str]:
    """The classes of a folder, whose training part has all of them."""
    classes, tested = (
        sorted(path.name for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))
        for part in (parts[0], parts[-1])
    )
    if not 2 <= len(classes) <= 256:
        raise DataError(f"{name}: {parts[0]} has {len(classes)} sub-folders, one for each class", "make 2 to 256")
    if unknown := sorted(set(tested) - set(classes)):
        problem = f"{name}: {', '.join(unknown[:3])}: a class in {parts[-1]} but not in {parts[0]}"
        raise DataError(problem, "give each class training pictures, or delete its test pictures")
    return classes


def read(folder: Path, names: Sequence[str], progress: Heard) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
    """The pictures `names` below `folder`, uint8 (N, 28, 28), white on black; the reason where one cannot be read."""
    place = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()
    cache = platformdirs.user_cache_path("mnist-accel") / f"{place[:16]}.npz"
    # What decides how a picture is read: the code and the file, whose content has changed only if size or times have.
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(pictures.__file__).parent.glob("*.py"))]
    found = [path.stat() for path in (folder / name for name in names) if path.exists()]  # a link may lead nowhere
    versions = [(status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in found]
    key = hashlib.sha256(repr([PIL.__version__, code, names, versions]).encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):  # no cache, or damaged
        kept = np.load(io.BytesIO(cache.read_bytes()))
        if str(kept["key"]) == key:
            return kept["images"], dict(zip(kept["damaged"].tolist(), kept["reasons"].tolist(), strict=True))
    images = np.zeros((len(names), 28, 28), np.uint8)
    errors: dict[int, str] = {}
    for index, answer in enumerate(_answers([folder / name for name in names])):
        if isinstance(answer, str):
            errors[index] = answer
        else:
            images[index] = answer
        if (index + 1) % CHUNK == 0 or index + 1 == len(names):
            progress(index + 1, len(names))
    content = io.BytesIO()
    np.savez(content, key=key, images=images, damaged=list(errors), reasons=list(errors.values()))
    with suppress(OSError, OutputError):  # without a cache, the next run reads the pictures again
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_whole(cache, content.getvalue())
    return images, errors


def _answers(paths: list[Path]) -> Iterator[Answer]:
    """The pictures, in order, read by several processes in turn, a chunk each."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    processes = min(available_cores(), len(paths) // LEAST_PER_PROCESS)
    if processes < 2:
        yield from map(_answer, paths)
        return
    # Not by multiprocessing: its children import the main program again, which may train, and stay behind after a kill.
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    with ExitStack() as stack:
        answers = []
        for number in range(processes):
            reader = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            assert reader.stdin
            assert reader.stdout
            with reader.stdin:
                pickle.dump(chunks[number::processes], reader.stdin)
            answers.append(reader.stdout)
        for number in range(len(chunks)):
            yield from pickle.load(answers[number % processes])


def serve() -> None:
    """Answer lists of paths, which stdin holds, with the pictures, until nobody reads them any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the program that asks
    with suppress(BrokenPipeError):
        for chunk in pickle.load(sys.stdin.buffer):
            pickle.dump([_answer(path) for path in chunk], sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _answer(path: Path) -> Answer:
    try:
        return read_character(path)
    except PictureError as error:
        return error.message
