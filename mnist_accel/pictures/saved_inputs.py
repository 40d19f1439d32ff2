"""Saves the network's inputs as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from mnist_accel.errors import printable
from mnist_accel.files import atomic
from mnist_accel.pictures.picture_file import STDIN
from mnist_accel.pictures.predict import PictureResult


class SavedInputs:
    """A folder with one PNG of 28×28 pixels for each digit, named after its picture.

    Pictures of the same name in different folders get numbers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    def save(self, result: PictureResult) -> None:
        """Save the digits of one picture.

        Raises:
            OutputError: the folder is gone, read-only or full.
        """
        stem = "stdin" if result.file == STDIN else Path(result.file).stem
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        contents = {}
        for position, digit in enumerate(result.digits, start=1):
            buffer = io.BytesIO()
            Image.fromarray(digit.image).save(buffer, "PNG")
            label = printable(digit.label, 40).replace("/", " ")
            contents[self.folder / f"{name}_digit{position}_{label}.png"] = buffer.getvalue()
        if contents:
            atomic.publish(contents)
