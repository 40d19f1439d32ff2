"""Shows the answers of `predict`: drawn on a terminal, as lines with tabs elsewhere."""

import math

import numpy as np
import numpy.typing as npt
from rich.columns import Columns
from rich.console import Console, Group
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mnist_accel.errors import printable
from mnist_accel.pictures.predict import Digit, PictureResult


def show(console: Console, result: PictureResult, *, show_all: bool = False) -> None:
    """Show the labels of one picture, which has at least one digit; draw its doubtful digits, or all."""
    file = result.file if result.file.isprintable() else printable(result.file)
    number = printable(" / ".join(result.lines))
    if not console.is_terminal:
        doubts = "; ".join(printable(f"{digit.label}: {digit.doubt}") for digit in result.digits if digit.doubt)
        print("\t".join([file, number, _floored(result.probability), doubts]).rstrip(), flush=True)
        return
    shown = Text(number, style="bold yellow" if result.is_doubtful else "bold green")
    console.print(shown, Text(f" {file}"))
    is_coloured = console.color_system is not None and not console.no_color
    panels = [_panel(digit, is_coloured=is_coloured) for digit in result.digits if digit.doubt or show_all]
    if panels:
        console.print(Columns([Padding(panel, (1, 0, 0, 0)) for panel in panels]))
        console.print(shown)


def summarise(console: Console, results: list[PictureResult]) -> None:
    """On a terminal, count several pictures by their outcome."""
    if console.is_terminal and len(results) > 1:
        failed = sum(result.error is not None for result in results)
        doubtful = sum(result.is_doubtful for result in results)
        counts = f"{len(results) - failed - doubtful} read, {doubtful} doubtful, {failed} not read"
        console.print(f"{len(results)} pictures: {counts}", style="bold")


def _panel(digit: Digit, *, is_coloured: bool) -> Table:
    """The network's input beside the most probable labels."""
    answers = Table.grid(padding=(0, 1))
    for label, probability in digit.top:
        bar = "█" * round(12 * probability)
        answers.add_row(Text(printable(label, 40), style="bold"), Text(f"{_floored(probability):>6}"), bar)
    place = Text("at {}, {} … {}, {}".format(*digit.box), style="dim")
    notes = Group(answers, place, Text(printable(digit.doubt), style="yellow"))
    panel = Table.grid(padding=(0, 2, 0, 0))
    panel.add_column(width=digit.image.shape[1], no_wrap=True)
    panel.add_column(max_width=32)
    panel.add_row(half_blocks(digit.image, is_coloured=is_coloured), notes)
    return panel


def half_blocks(image: npt.NDArray[np.uint8], *, is_coloured: bool) -> Text:
    """A grey image, uint8 (H, W) with even H, as H/2 lines of W characters; each character shows two pixels."""
    text = Text()
    for rows in zip(image[::2].tolist(), image[1::2].tolist(), strict=True):
        for above, below in zip(*rows, strict=True):
            if is_coloured:
                text.append("▀", Style.parse(f"rgb({above},{above},{above}) on rgb({below},{below},{below})"))
            else:
                text.append(" ▀▄█"[(above >= 96) + 2 * (below >= 96)])
        text.append("\n")
    text.right_crop(1)
    return text


def _floored(probability: float) -> str:
    """In per cent, rounded down: 100.0% stands for 1 alone."""
    return f"{math.floor(probability * 1000) / 10:.1f}%"
