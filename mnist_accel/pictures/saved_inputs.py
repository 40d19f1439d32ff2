"""Saves the network's inputs as PNG files."""

from pathlib import Path

from PIL import Image

from mnist_accel.errors import printable
from mnist_accel.files import atomic
from mnist_accel.pictures import picture_file
from mnist_accel.pictures.predict import PictureResult


class SavedInputs:
    """A folder with a PNG of 28×28 pixels for each digit, named after its picture, and numbered where names repeat."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    def save(self, result: PictureResult) -> None:
        """Save the digits of one picture.

        Raises:
            OutputError: the folder is gone, read-only or full.
        """
        stem = "stdin" if result.file == picture_file.STDIN else Path(result.file).stem
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name)
        contents = {}
        for position, digit in enumerate(result.digits, start=1):
            label = printable(digit.label, 40).replace("/", " ")
            path = self.folder / f"{name}_digit{position}_{label}.png"
            contents[path] = picture_file.png(Image.fromarray(digit.image))
        atomic.publish(contents)
