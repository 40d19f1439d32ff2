"""Reads the digits of pictures: finds them, brings them to MNIST's form, and labels them with a model."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from mnist_accel.pictures import ink, mnist_form, page, picture_file, processes, strokes
from mnist_accel.pictures.picture_file import Picture, PictureError
from mnist_accel.pictures.strokes import Box, Mark

if TYPE_CHECKING:
    from mnist_accel.models.classifier import Classifier

PICTURES_AT_ONCE = 256  # the largest number of pictures whose digits go through the network together
SURE = 0.9  # an answer of lower probability is doubtful
LEAST_HOLE = 0.002  # of the area of a mark's box; smaller holes are noise
THICKEST = 0.6  # width of a stroke, as a share of the digit's longer side; 99.9% of drawn digits have at most 0.52
GAP = 0.9  # between two numbers in a row, of the digits' median height
REGULAR = 1.6  # in a long row, a gap also makes a distance of more than so many first quartiles of all distances


@dataclass(frozen=True)
class Digit:
    """One digit of a picture."""

    label: str  # the most probable class
    probability: float  # of `label`: the network's, times the probability that this is exactly one digit
    top: list[tuple[str, float]]  # the most probable labels with their probabilities, in descending order
    box: Box  # in pixels of the upright picture
    image: npt.NDArray[np.uint8] = field(repr=False, compare=False)  # (28, 28), the network's input
    doubt: str = ""  # why this may be another digit, or none; "" without doubt


@dataclass(frozen=True)
class PictureResult:
    """The digits of one picture."""

    file: str = ""  # its name; "" for a picture in memory
    digits: list[Digit] = field(default_factory=list)  # row by row from the top, each row from the left
    error: str | None = None  # why no digit was read

    @property
    def text(self) -> str:
        """All labels in order."""
        return "".join(digit.label for digit in self.digits)

    @property
    def is_doubtful(self) -> bool:
        """Whether any digit has a doubt."""
        return any(digit.doubt for digit in self.digits)

    @property
    def probability(self) -> float:
        """That of the least certain digit; 0 if there is none."""
        return min((digit.probability for digit in self.digits), default=0.0)

    @property
    def lines(self) -> list[str]:
        """The labels of each row, with a space where the writer left a gap."""
        rows: list[list[Digit]] = []
        for digit in self.digits:
            if not rows or digit.box[0] < rows[-1][-1].box[0]:
                rows.append([])
            rows[-1].append(digit)
        return [_spaced(row, self.digits) if len(row) > 1 else row[0].label for row in rows]

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        digits = []
        for digit in self.digits:
            top = [{"label": label, "probability": probability} for label, probability in digit.top]
            named = {"label": digit.label, "probability": digit.probability, "top": top}
            digits.append(named | {"box": list(digit.box), "doubt": digit.doubt})
        return {"file": self.file, "lines": self.lines, "digits": digits, "error": self.error}


def read_pictures(sources: Sequence[str | Picture], model: "Classifier", top_k: int = 3) -> Iterator[PictureResult]:
    """The results of pictures, or of the files with these names, in their order. This process reads stdin."""
    found = map(_find, sources) if picture_file.STDIN in sources else processes.each(_find, sources)
    sizes = (min(2**number, PICTURES_AT_ONCE) for number in itertools.count())  # small first: answers come early
    while batch := list(itertools.islice(found, next(sizes))):
        both = _labelled([reading for readings in batch for reading in readings], model, top_k)
        for first, whole in zip(both[::2], both[1::2], strict=True):
            is_number = sum(not digit.doubt for digit in first.digits) > 2  # a digit does not fall into so many
            is_worse = first.is_doubtful or (len(first.digits) > 1 and first.probability < whole.probability)
            is_whole = first.error or (is_worse and not whole.is_doubtful and not is_number)
            yield whole if whole.digits and is_whole else first


def _spaced(row: list[Digit], digits: list[Digit]) -> str:
    """The labels of a row of a picture's `digits`, with a space in a wide gap, but not between boxes of a form."""
    gap = GAP * float(np.median([digit.box[3] - digit.box[1] for digit in digits]))
    left, _, right, _ = np.array([digit.box for digit in row]).T
    is_gap, steps = left[1:] - right[:-1] > gap, np.diff((left + right) / 2)
    if len(row) > 4:  # fewer digits may be at equal distances by chance
        is_gap &= steps > REGULAR * np.quantile(steps, 0.25)
    return "".join(" " * space + digit.label for space, digit in zip([False, *is_gap.tolist()], row, strict=True))


def _find(source: str | Picture) -> tuple[PictureResult, PictureResult]:
    """The digits of a picture, before the network labels them; and the whole picture as a digit, if it may be one."""
    file = source if isinstance(source, str) else ""
    whole = PictureResult(file)
    try:
        picture = picture_file.read(source) if isinstance(source, str) else source
        pixels, everything = picture.pixels, (0, 0, *picture.size)
        if mnist_form.is_conventional(pixels):
            return PictureResult(file, [Digit("", 0.0, [], everything, pixels)]), whole
        if (filled := ink.of_one_digit(pixels)) is not None:
            whole = PictureResult(file, [_unlabelled(everything, Mark(everything, filled, 1))])
        pixels, page_left, page_top = page.cut_out(pixels)
        marks = strokes.find_marks(ink.strength(pixels))
        if not marks:
            raise PictureError("no digit found: specks, lines or an edge at most")
    except PictureError as error:
        return PictureResult(file, error=str(error)), whole
    if len(marks) > strokes.MOST_MARKS:
        text = f"more than {strokes.MOST_MARKS} separate marks: this looks like text or texture, not a number"
        return PictureResult(file, error=text), PictureResult(file)
    digits = []
    for mark in marks:
        box = (np.array(mark.box) + (page_left, page_top) * 2) * (picture.size[0] / picture.pixels.shape[1])
        left, top, right, bottom = box.round().astype(int).tolist()
        digits.append(_unlabelled((left, top, right, bottom), mark))
    return PictureResult(file, digits), whole


def _unlabelled(box: Box, mark: Mark) -> Digit:
    return Digit("", 0.0, [], box, mnist_form.to_mnist(mark.ink), _shape_doubt(mark))


def _shape_doubt(mark: Mark) -> str:
    """Why a mark does not have the shape of one digit, or ""."""
    height, width = mark.ink.shape
    drawn = np.pad(mark.ink >= strokes.FAINT * ink.USUAL, 1).view(np.uint8)
    background = cv2.connectedComponentsWithStats(1 - drawn, connectivity=4)[2][2:]  # without ink and surroundings
    holes = np.count_nonzero(background[:, strokes.AREA] >= LEAST_HOLE * drawn.size)
    why = f"{mark.pieces} pieces" if mark.pieces > 4 else f"{holes} holes" if holes > 2 else ""
    if 2 * cv2.distanceTransform(drawn, cv2.DIST_L2, 3).max() > THICKEST * max(height, width):
        why = "a blot, or too much ink"
    if width > 1.5 * height:
        why = "too wide; several that touch?"
    return why and f"does not look like one digit: {why}"


def _labelled(found: list[PictureResult], model: "Classifier", top_k: int) -> list[PictureResult]:
    images = [digit.image for one in found for digit in one.digits]
    if not images:
        return found
    stacked, names = np.stack(images), model.class_names
    from mnist_accel.pictures import rejection  # here, for the start-up time: it imports torch

    is_checked = list(names) == list("0123456789")
    is_digit = rejection.digit_probability(stacked) if is_checked else np.ones(len(images), np.float32)
    probabilities = model.probabilities(stacked)
    order = np.argsort(-probabilities, axis=1, kind="stable").tolist()
    are_odd = (is_digit < probabilities.max(axis=1)).tolist()  # rather no digit, or several, than another digit
    rows = zip(order, are_odd, (probabilities * is_digit[:, None]).tolist(), strict=True)

    def named(digit: Digit) -> Digit:
        classes, is_odd, shares = next(rows)
        top = [(names[index], shares[index]) for index in classes[: max(1, top_k)]]
        label, probability = top[0]
        other = "no digit, or several" if is_odd else names[classes[1]]
        doubt = digit.doubt or (f"not sure: {label} or {other}" if probability < SURE else "")
        return replace(digit, label=label, probability=probability, top=top, doubt=doubt)

    return [replace(one, digits=[named(digit) for digit in one.digits]) for one in found]


def read_character(path: Path) -> npt.NDArray[np.uint8]:
    """All ink of a picture as one character, uint8 (28, 28), white on black. Raises PictureError if there is none."""
    pixels = picture_file.read(str(path)).pixels
    if mnist_form.is_conventional(pixels):
        return pixels
    strength = ink.strength(pixels)
    marks = strokes.find_marks(strength)
    return mnist_form.to_mnist(marks[0].ink if len(marks) == 1 else ink.in_bytes(strength))
