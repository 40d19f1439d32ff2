"""`--dataset folder:DIR`: a data set of pictures, one sub-folder for each class. What was read is kept in a cache."""

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import platformdirs

from mnist_accel.data.digits import DataSet, Digits, hold_out, select
from mnist_accel.errors import DataError, OutputError
from mnist_accel.files.atomic import publish
from mnist_accel.pictures import processes
from mnist_accel.pictures.picture_file import SUFFIXES, PictureError
from mnist_accel.pictures.predict import read_character

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
    code = [path.read_text(encoding="utf-8") for path in sorted(Path(processes.__file__).parent.glob("*.py"))]
    found = [path.stat() for path in (folder / name for name in names) if path.exists()]  # a link may lead nowhere
    versions = [(status.st_size, status.st_mtime_ns, status.st_ctime_ns) for status in found]
    key = hashlib.sha256(repr([PIL.__version__, code, names, versions]).encode()).hexdigest()
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):  # no cache, or damaged
        kept = np.load(io.BytesIO(cache.read_bytes()))
        if str(kept["key"]) == key:
            return kept["images"], dict(zip(kept["damaged"].tolist(), kept["reasons"].tolist(), strict=True))
    images = np.zeros((len(names), 28, 28), np.uint8)
    errors: dict[int, str] = {}
    for index, answer in enumerate(processes.each(_answer, [folder / name for name in names])):
        if isinstance(answer, str):
            errors[index] = answer
        else:
            images[index] = answer
        progress(index + 1, len(names))
    content = io.BytesIO()
    np.savez(content, key=key, images=images, damaged=list(errors), reasons=list(errors.values()))
    with suppress(OSError, OutputError):  # without a cache, the next run reads the pictures again
        cache.parent.mkdir(parents=True, exist_ok=True)
        publish({cache: content.getvalue()})
    return images, errors


def _answer(path: Path) -> npt.NDArray[np.uint8] | str:  # (28, 28), or the reason why it cannot be read
    try:
        return read_character(path)
    except PictureError as error:
        return error.message
