"""Reads a picture of one character, such as a data set of pictures holds, as a 28×28 image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_accel.pictures import ink, mnist_form, picture_file, strokes
from mnist_accel.pictures.picture_file import PictureError
from mnist_accel.pictures.strokes import TooManyMarksError


def read_character(path: Path) -> npt.NDArray[np.uint8]:
    """The picture of one character as the networks take it, prepared in the same way as by `predict`.

    All ink is taken for the one character, however many strokes it has.

    Returns:
        uint8 (28, 28), white on black.

    Raises:
        PictureError: the file cannot be read, or the picture is blank.
    """
    pixels = picture_file.read(str(path)).pixels
    if mnist_form.is_conventional(pixels):
        return pixels
    strength = ink.strength(pixels)
    if strength is None:
        raise PictureError("blank: no ink stands out from the paper")
    try:
        marks = strokes.find_marks(strength)
    except TooManyMarksError:  # texture, in a data set of other things than characters
        marks = []
    return mnist_form.to_mnist(marks[0].ink if len(marks) == 1 else strength)
