"""Facts, tables, written files and the result of an evaluation on the terminal."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mnist_accel.errors import printable

if TYPE_CHECKING:
    from mnist_accel.training.evaluate import EvaluateResult


def result_console(*, to_stderr: bool) -> Console:
    """A console on stdout for results; on stderr for progress, and for results where stdout carries JSON."""
    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # lines are not wrapped, and tables have their natural width
    return console


def running(text: str) -> AbstractContextManager[object]:
    """Show on stderr that something runs: a spinner on a terminal, otherwise one line."""
    console = result_console(to_stderr=True)
    if console.is_terminal:
        return console.status(Text(text))
    console.print(Text(f"{text} …"))
    return nullcontext()


def print_report(console: Console, result: "EvaluateResult", files: Sequence[Path]) -> None:
    """Show an evaluation: accuracy with its interval, figures by class, confusion matrix, written files."""
    low, high = result.accuracy_ci95
    print_line(console, f"{result.dataset}: test accuracy {result.accuracy:.2%}")
    console.print(
        f"{result.correct:,} of {result.samples:,} images correct; 95% interval {low:.2%} to {high:.2%}; "
        f"loss {result.loss:.4f}"
    )
    names = [printable(row["class"], longest=40) for row in result.per_class]
    classes: list[tuple[str, ...]] = []
    matrix: list[tuple[str | Text, ...]] = []
    for true, (row, counts) in enumerate(zip(result.per_class, result.confusion_matrix, strict=True)):
        shares = [f"{row[share]:.2%}" for share in ("precision", "recall", "f1")]
        classes.append((names[true], *shares, f"{row['samples']:,}"))
        cells = [Text(str(number) if number else "·", style="red" if number else "dim") for number in counts]
        cells[true].style = "bold"
        matrix.append((names[true], *cells))
    print_rows(console, ("class", "precision", "recall", "F1", "samples"), classes, title="By class")
    heads = ("true \\ predicted", *names)
    print_rows(console, heads, matrix, title="Confusion matrix (· is 0)", padding=(0, 1, 0, 0))
    print_files(console, files)


def print_line(console: Console, text: str, style: str = "bold") -> None:
    """A title, or a warning. The text may come from a file."""
    console.print(Text(printable(text, longest=1000), style=style))


def print_rows(console: Console, heads: Sequence[str], rows: Sequence[Sequence[str | Text]], **style: Any) -> None:
    """A table. Texts may come from a file; `style` is Rich's."""
    table = Table(*(escape(printable(head, 60)) for head in heads), title_justify="left", **style)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    console.print(table)


def print_facts(console: Console, facts: Mapping[str, object], longest: int = 300) -> None:
    """One line per fact. Values may come from a file."""
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        line = Text(f"{printable(name):<{width}}", style="bold")
        console.print(line.append(as_text(value, longest), style="not bold"))


def print_files(console: Console, files: Sequence[Path]) -> None:
    """One line per written file; never wrapped, so that it can be copied."""
    for path in files:
        console.print(Text(f"  {printable(path, longest=1000)}"), soft_wrap=True)


def differing(*tables: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The entries that tables do not share, with the value in each table; None where it has none."""
    found = {name: [table.get(name) for table in tables] for name in dict.fromkeys(chain(*tables))}
    return {name: values for name, values in found.items() if any(value != values[0] for value in values)}


def as_text(value: object, longest: int = 300) -> str:
    """A JSON value as one printable line: an object as "name value, name value", a list as "value, value"."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {as_text(inner)}" for name, inner in value.items() if inner is not None)
    elif isinstance(value, list | tuple):
        value = ", ".join(map(as_text, value))
    return printable(value, longest)
