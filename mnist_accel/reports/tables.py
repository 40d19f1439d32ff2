"""What commands find, as terminal pages: an evaluation, the selftest's checks, the doctor's findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mnist_accel.export.inspection import Inspection
    from mnist_accel.export.write import ExportResult
    from mnist_accel.training.evaluate import EvaluateResult


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


def print_export(console: Console, result: ExportResult) -> None:
    """What was written, and how it was checked."""
    facts = {
        "wrote": f"{result.output}: {result.bytes:,} bytes, {result.format}"
        + (f", opset {result.opset}" if result.opset else ""),
        "model": f"{result.model}, {result.classes} classes",
        "takes": result.takes,
        "checked": f"on {result.samples:,} digits against the original: probabilities differ by at most "
        f"{result.largest_difference:.1e}, predictions on {result.other_predictions}",
    }
    _print_facts(console, facts)


def print_inspection(console: Console, found: Inspection) -> None:
    """What a file is, its tensors, and what is wrong with it."""
    head = {"file": found.path, "kind": found.kind, "bytes": f"{found.bytes:,}", "SHA-256": found.sha256}
    _print_facts(console, head | found.facts)
    if found.tensors:
        table = Table("tensor", "shape", "type", "bytes")
        for tensor in found.tensors:
            shape = " × ".join(map(str, tensor["shape"])) or "one number"
            table.add_row(Text(tensor["name"]), shape, tensor["type"], f"{tensor['bytes']:,}")
        console.print(table)
    _print_warnings(console, found.problems)


def _print_facts(console: Console, facts: Mapping[str, str]) -> None:
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        line = Text(f"{name:<{width}}", style="bold")
        console.print(line.append(value, style="not bold"))


def _print_warnings(console: Console, warnings: Sequence[str]) -> None:
    for warning in warnings:
        console.print(Text(f"WARNING: {warning}", style="bold yellow"))
