"""Digits in pictures of any kind: found, brought to MNIST's convention, and named."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist_accel.models import classifier
from mnist_accel.models.classifier import Classifier
from mnist_accel.pictures import ink
from mnist_accel.pictures import mnist_form as convention
from mnist_accel.pictures import picture_file as picture
from mnist_accel.pictures import strokes as segment
from mnist_accel.pictures.picture_file import Picture, PictureError

PICTURES_AT_ONCE = 256
"""Whose digits go through the network together."""
SURE = 0.8
"""Probability from which an answer is given without a doubt."""
MOST_PIECES = 4
WIDEST = 1.5
"""Width by height: a digit is narrower."""
FULLEST = 0.8
"""Share of its box that a digit's ink covers at most, unless it is as narrow as a 1."""
NARROW = 0.45
MOST_DIGITS = 60
"""In one picture; more marks are text or texture."""


@dataclass(frozen=True)
class Digit:
    """One digit of a picture, as the network reads it.

    Attributes:
        probability: the network's, of `label`.
        top: the most probable labels with their probabilities, the most probable first.
        box: left, top, right, bottom in pixels of the upright picture.
        image: uint8 (28, 28), what the network saw.
        doubt: why this may be no digit, or another one; "" without doubt.
    """

    label: str
    probability: float
    top: list[tuple[str, float]]
    box: segment.Box
    image: npt.NDArray[np.uint8] = field(repr=False, compare=False)
    doubt: str = ""


@dataclass(frozen=True)
class PictureResult:
    """What was found in one picture.

    Attributes:
        file: its name, or "" for a picture in memory.
        digits: rows from the top, in each from the left.
        error: why there is nothing to tell, or None.
    """

    file: str = ""
    digits: list[Digit] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        """All labels, one after another."""
        return "".join(digit.label for digit in self.digits)

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        digits = [
            {
                "label": digit.label,
                "probability": digit.probability,
                "top": [{"label": label, "probability": probability} for label, probability in digit.top],
                "box": list(digit.box),
                "doubt": digit.doubt,
            }
            for digit in self.digits
        ]
        return {"file": self.file, "digits": digits, "error": self.error}


@dataclass(frozen=True)
class _Found:
    """The digits of one picture before the network has seen them: a box, an image and a doubt each."""

    file: str
    boxes: list[segment.Box] = field(default_factory=list)
    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    error: str | None = None


def predict(
    pictures: str | Path | Sequence[str | Path], weights: str | Path = "mnist_cnn_model.pth", top_k: int = 3
) -> list[PictureResult]:
    """Read the digits in picture files.

    Args:
        pictures: a file, a folder, a pattern such as "*.png", or several of them.
        weights: a .pth file.
        top_k: how many labels to tell of each digit.

    Returns:
        A result for each picture; one that cannot be read has an error.

    Raises:
        UserError: the weights are not usable.
    """
    names = [pictures] if isinstance(pictures, str | Path) else pictures
    return list(read_files(picture.find([str(name) for name in names]), classifier.load(Path(weights)), top_k))


def read_files(names: Iterable[str], model: Classifier, top_k: int = 3) -> Iterator[PictureResult]:
    """Results of picture files in their order, some hundred at a time."""
    remaining = iter(names)
    while batch := list(itertools.islice(remaining, PICTURES_AT_ONCE)):
        yield from _answer([_find_in_file(name) for name in batch], model, top_k)


def read_picture(
    source: npt.NDArray[np.uint8] | Image.Image, model: Classifier, top_k: int = 3, file: str = ""
) -> PictureResult:
    """The digits in one picture in memory.

    Args:
        source: uint8 (H, W), (H, W, 3) or (H, W, 4); or a Pillow image.
        file: a name for the result.
    """
    return read_pictures([source], model, top_k, [file])[0]


def read_pictures(
    sources: Sequence[npt.NDArray[np.uint8] | Image.Image],
    model: Classifier,
    top_k: int = 3,
    files: Sequence[str] | None = None,
) -> list[PictureResult]:
    """The same for several pictures, with one pass through the network for all."""
    found = []
    for source, file in zip(sources, files or [""] * len(sources), strict=True):
        try:
            image = Image.fromarray(source) if isinstance(source, np.ndarray) else source
            found.append(_find(picture.from_image(image), file))
        except PictureError as error:
            found.append(_Found(file, error=str(error)))
    return _answer(found, model, top_k)


def _find_in_file(name: str) -> _Found:
    try:
        return _find(picture.read(name), name)
    except PictureError as error:
        return _Found(name, error=str(error))


def _find(source: Picture, file: str) -> _Found:
    pixels = source.pixels
    if convention.is_conventional(pixels):
        return _Found(file, [(0, 0, *source.size)], [pixels], [""])
    strength = ink.strength(pixels)
    if strength is None:
        return _Found(file, error="blank: no ink stands out from the paper")
    marks = segment.find_marks(strength)
    if not marks:
        return _Found(file, error="no digit found: specks, lines or an edge at most")
    if len(marks) > MOST_DIGITS:
        return _Found(file, error=f"{len(marks)} separate marks: this looks like text or texture, not like a number")
    scale = source.size[0] / pixels.shape[1], source.size[1] / pixels.shape[0]
    return _Found(
        file,
        [_scaled(mark.box, *scale) for mark in marks],
        [convention.to_mnist(mark.ink) for mark in marks],
        [_shape_doubt(mark) for mark in marks],
    )


def _scaled(box: segment.Box, across: float, down: float) -> segment.Box:
    left, top, right, bottom = box
    return round(left * across), round(top * down), round(right * across), round(bottom * down)


def _shape_doubt(mark: segment.Mark) -> str:
    """Why a mark does not look like one digit, whatever the network says."""
    height, width = mark.ink.shape
    fill = float((mark.ink >= segment.FAINT * ink.USUAL).mean())
    if width > WIDEST * height:
        return "does not look like one digit: too wide; several that touch?"
    if fill > FULLEST and width > NARROW * height:
        return "does not look like one digit: a blot, or too much ink"
    if mark.pieces > MOST_PIECES:
        return f"does not look like one digit: {mark.pieces} pieces"
    return ""


def _answer(found: Sequence[_Found], model: Classifier, top_k: int) -> list[PictureResult]:
    images = [image for one in found for image in one.images]
    shape = (0, convention.SIDE, convention.SIDE)
    probabilities = iter(model.probabilities(np.stack(images) if images else np.empty(shape, np.uint8)))
    results = []
    for one in found:
        digits = [
            _digit(next(probabilities), model.class_names, top_k, box, image, doubt)
            for box, image, doubt in zip(one.boxes, one.images, one.doubts, strict=True)
        ]
        results.append(PictureResult(one.file, digits, one.error))
    return results


def _digit(
    probabilities: npt.NDArray[np.float32],
    names: Sequence[str],
    top_k: int,
    box: segment.Box,
    image: npt.NDArray[np.uint8],
    doubt: str,
) -> Digit:
    order = np.argsort(-probabilities, kind="stable")
    top = [(names[index], float(probabilities[index])) for index in order[: max(1, top_k)]]
    label, probability = top[0]
    if probability < SURE and not doubt:
        second = names[order[1]] if len(names) > 1 else "none"
        doubt = f"not sure: {label} or {second}"
    return Digit(label, probability, top, box, image, doubt)
