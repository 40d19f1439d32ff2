"""An evaluation as a terminal page: headline, a row a class, the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mnist_accel.evaluation import EvaluateResult


def print_report(console: Console, result: EvaluateResult, files: Sequence[Path]) -> None:
    """Write the page."""
    low, high = result.accuracy_ci95
    console.print(
        Text(
            f"{result.dataset}: {result.correct:,} of {result.samples:,} test images right: accuracy "
            f"{result.accuracy:.2%} (95% interval {low:.2%} to {high:.2%}), loss {result.loss:.4f}",
            style="bold",
        )
    )
    classes = Table("class", "precision", "recall", "F1", "samples", title="By class", title_justify="left")
    for row in result.per_class:
        classes.add_row(
            row["class"], f"{row['precision']:.2%}", f"{row['recall']:.2%}", f"{row['f1']:.2%}", f"{row['samples']:,}"
        )
    console.print(classes)
    names = [row["class"] for row in result.per_class]
    matrix = Table(
        "true \\ predicted", *names, title="Confusion matrix (· is 0)", title_justify="left", padding=(0, 1, 0, 0)
    )
    for true, (name, counts) in enumerate(zip(names, result.confusion_matrix, strict=True)):
        cells = [
            Text(str(count) if count else "·", style="bold" if true == predicted else "red" if count else "dim")
            for predicted, count in enumerate(counts)
        ]
        matrix.add_row(name, *cells)
    console.print(matrix)
    for path in files:
        console.print(Text(f"  {path}"))
