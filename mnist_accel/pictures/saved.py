"""Saves the network's inputs, and pictures with the answers drawn on them, as PNG files."""

import itertools
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mnist_accel.errors import printable
from mnist_accel.files import atomic
from mnist_accel.pictures import picture_file
from mnist_accel.pictures.predict import PictureResult

SURE, DOUBTFUL = "#0a7d33", "#c25400"


def save(result: PictureResult, inputs: Path | None, answers: Path | None, taken: set[str]) -> None:
    """Save each digit's image in `inputs`, and the answer picture in `answers`; names that are `taken` get a number."""
    stem = "stdin" if result.file == picture_file.STDIN else Path(result.file).stem
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    contents = {}
    for position, digit in enumerate(result.digits if inputs else [], start=1):
        label = printable(digit.label, 40).replace("/", " ")
        contents[f"{inputs}/{name}_digit{position}_{label}.png"] = Image.fromarray(digit.image)
    if answers and result.digits:
        contents[f"{answers}/{name}_answer.png"] = answer_picture(result)
    atomic.publish({Path(path): picture_file.png(image) for path, image in contents.items()})


def answer_picture(result: PictureResult) -> Image.Image:
    """The picture of a result with a box and a label for each digit; doubtful ones have another colour and a "?"."""
    picture = picture_file.read(result.file)
    image = Image.fromarray(picture.pixels).convert("RGB")
    scale = image.width / picture.size[0]
    draw = ImageDraw.Draw(image)
    for digit in result.digits:
        left, top, right, bottom = (edge * scale for edge in digit.box)
        colour, mark = (DOUBTFUL, "?") if digit.doubt else (SURE, "")
        size = max(10.0, 0.3 * (bottom - top))
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=max(1, round(size / 12)))
        place, text = (left, max(top, 1.2 * size)), printable(digit.label, 20) + mark
        font = ImageFont.load_default(size)
        draw.text(place, text, colour, font, anchor="lb", stroke_width=max(1, round(size / 12)), stroke_fill="white")
    return image
