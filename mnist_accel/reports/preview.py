"""What `predict` shows on the terminal: what the network saw beside what it answers."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from rich.columns import Columns
from rich.console import Console, Group
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mnist_accel.pictures.predict import Digit, PictureResult

MOST_DRAWN = 12
"""Pictures; of more, each gets a line."""
BAR = 12
"""Characters of a probability of 1."""


def open_console(*, to_stderr: bool) -> Console:
    """Of stdout, or of stderr where stdout carries JSON."""
    return Console(stderr=to_stderr, highlight=False)


def line(result: PictureResult) -> str:
    """One picture in a line: file, labels, the lowest probability of one, doubts; between tabs."""
    doubts = "; ".join(f"{digit.label}: {digit.doubt}" for digit in result.digits if digit.doubt)
    lowest = min(digit.probability for digit in result.digits)
    return "\t".join([result.file, result.text, _floored(lowest), doubts]).rstrip()


def draw(console: Console, result: PictureResult) -> None:
    """The labels, and each digit's 28×28 pixels beside its most probable labels."""
    console.print(Text(result.file, style="bold"), Text(f"  {result.text}", style="bold green"), sep="")
    panels = [_panel(digit, is_coloured=console.color_system is not None) for digit in result.digits]
    console.print(Columns([Padding(panel, (0, 0, 1, 0)) for panel in panels]))


def _panel(digit: Digit, *, is_coloured: bool) -> Table:
    answers = Table.grid(padding=(0, 1))
    for label, probability in digit.top:
        answers.add_row(Text(label, style="bold"), Text(f"{_floored(probability):>6}"), "█" * round(BAR * probability))
    left, top, right, bottom = digit.box
    notes: list[Text | Table] = [answers, Text(f"at {left}, {top} … {right}, {bottom}", style="dim")]
    if digit.doubt:
        notes.append(Text(digit.doubt, style="yellow"))
    panel = Table.grid(padding=(0, 2, 0, 0))
    panel.add_column(width=digit.image.shape[1], no_wrap=True)
    panel.add_column(max_width=32)
    panel.add_row(half_blocks(digit.image, is_coloured=is_coloured), Group(*notes))
    return panel


def half_blocks(image: npt.NDArray[np.uint8], *, is_coloured: bool) -> Text:
    """A grey image, uint8 (H, W) with even H, as H/2 lines of W characters, each of which shows two pixels."""
    text = Text()
    for row in range(0, len(image), 2):
        for above, below in zip(image[row].tolist(), image[row + 1].tolist(), strict=True):
            if is_coloured:
                text.append("▀", Style.parse(f"rgb({above},{above},{above}) on rgb({below},{below},{below})"))
            else:
                text.append(" ▀▄█"[(above >= 96) + 2 * (below >= 96)])
        text.append("\n")
    text.right_crop(1)
    return text


def _floored(probability: float) -> str:
    """In per cent; 100% is only said of what is certain to four digits."""
    return f"{math.floor(probability * 1000) / 10:.1f}%"
