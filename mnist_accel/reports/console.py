"""Shows a training run on the terminal: progress bars on an interactive terminal, plain lines elsewhere."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID
from rich.text import Text

from mnist_accel.errors import printable
from mnist_accel.reports.run_summary import running_average, summary
from mnist_accel.training.events import Observer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from mnist_accel.training.events import EpochRecord, RunFacts

READ_SECONDS = 0.5
"""Time between two updates of the progress bar. Each reads sums from the device, which waits for it."""
LINE_SECONDS = 5.0
"""Time between two plain progress lines."""
COLUMN_WIDTHS = (7, 10, 11, 11, 11, 9, 7)
"""With two spaces between columns, a table of 78 characters."""


def stderr_console() -> Console:
    """A console for notices and progress."""
    return result_console(to_stderr=True)


def result_console(*, to_stderr: bool) -> Console:
    """A console for results: on stdout, or on stderr where stdout carries JSON."""
    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal:
        console.width = 10_000  # lines are not wrapped, and tables have their natural width
    return console


def running(text: str) -> AbstractContextManager[object]:
    """Show on stderr that something runs: a spinner on a terminal, otherwise one line."""
    console = stderr_console()
    if console.is_terminal:
        return console.status(Text(text))
    console.print(Text(f"{text} …"))
    return nullcontext()


class TrainingConsole(Observer):
    """An observer that shows a run.

    Args:
        console: for notices and progress.
        results: for the closing summary; by default `console`.
        quiet: show notices only.
    """

    def __init__(self, console: Console, *, results: Console | None = None, quiet: bool = False) -> None:
        self.console = console
        self.results = results or console
        self.quiet = quiet
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.epoch = 0
        self.started = self.updated = time.perf_counter()
        self.first_sample = 0
        self.has_heading = False

    def notice(self, text: str) -> None:
        """Show `text`, which may contain text from a file."""
        self.console.print(Text(f"NOTICE: {printable(text, longest=1000)}", style="bold yellow"), soft_wrap=True)

    def pictures_read(self, done: int, total: int) -> None:
        now = time.perf_counter()
        if done == total:
            self.close()
        elif not self.quiet and now - self.updated > (READ_SECONDS if self.console.is_interactive else LINE_SECONDS):
            self.updated = now
            if self.console.is_interactive:
                bar = self.bar or self._start_bar("pictures", total)
                bar.update(self.task, completed=done)
                bar.refresh()
            else:
                self.console.print(Text(f"  {done:,} of {total:,} pictures are read"))

    def run_started(self, facts: "RunFacts") -> None:
        self.close()
        self.facts = facts
        if self.quiet:
            return
        for name, value in summary(facts).items():
            self.console.print(Text(f"{name + ':':<12}", style="bold").append(printable(value), style="not bold"))

    def epoch_started(self, epoch: int, step: int) -> None:
        self.epoch = epoch
        self.started = self.updated = time.perf_counter()
        self.first_sample = step * self.facts.batch_size
        if self.quiet or not self.console.is_interactive:
            return
        self._start_bar(f"epoch {epoch + 1}/{self.facts.epochs}", self.facts.steps_per_epoch, step)

    def _start_bar(self, description: str, total: int, completed: int = 0) -> Progress:
        self.bar = Progress(
            "{task.description}",
            BarColumn(bar_width=None),
            "{task.completed}/{task.total}  {task.fields[figures]}",
            console=self.console,
            transient=True,
            auto_refresh=False,  # a drawing thread would take time from the training threads
        )
        self.task = self.bar.add_task(description, total=total, completed=completed, figures="")
        self.bar.start()
        return self.bar

    def step_finished(self, step: int, sums: "Tensor") -> None:
        now = time.perf_counter()
        if self.quiet or now - self.updated < (READ_SECONDS if self.bar else LINE_SECONDS):
            return
        self.updated = now
        facts = self.facts
        samples = min((step + 1) * facts.batch_size, facts.train_samples)
        speed = (samples - self.first_sample) / (now - self.started)
        left = ((facts.epochs - self.epoch) * facts.train_samples - samples) / speed
        time_left = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
        # The sums are of this process's share of the samples. The exact figures come at the end of the epoch.
        loss, accuracy, _ = (sums.sum(dim=1) / samples * facts.world_size).tolist()
        figures = f"loss {loss:.4f}  acc. {accuracy:.2%}  {speed:,.0f} images/s  {time_left} left"
        if self.bar:
            self.bar.update(self.task, completed=step + 1, figures=figures)
            self.bar.refresh()
        else:
            place = f"epoch {self.epoch + 1}/{facts.epochs}  step {step + 1}/{facts.steps_per_epoch}"
            self.console.print(Text(f"  {place}  {figures}"))

    def epoch_finished(self, record: "EpochRecord", step_losses: "npt.NDArray[np.float32]") -> None:  # noqa: ARG002
        self.close()
        if self.quiet:
            return
        part, loss, accuracy = "test", record.test_loss, record.test_accuracy
        if record.validation_loss is not None:
            part, loss, accuracy = "valid.", record.validation_loss, record.validation_accuracy
        if not self.has_heading:
            names = ("epoch", "train loss", "train acc.*", f"{part} loss", f"{part} acc.", "images/s", "seconds")
            self.console.print(Text(_row(names), style="bold"))
            self.has_heading = True
        values = (
            f"{record.epoch}/{self.facts.epochs}",
            *(f"{record.train_loss:.4f}", f"{record.train_accuracy:.2%}", f"{loss:.4f}", f"{accuracy:.2%}"),
            *(f"{record.images_per_second:,.0f}", f"{record.train_seconds:.1f}"),
        )
        self.console.print(Text(_row(values)))

    def show_result(self, headline: str, files: "Sequence[Path]") -> None:
        self.close()
        if self.quiet:
            return
        if self.has_heading:
            average = running_average(self.facts.settings)
            self.console.print(Text(f"* {average}; others: after the epoch", style="dim"))
        self.results.print(Text(headline, style="bold"))
        print_files(self.results, files)

    def close(self) -> None:
        """Remove a running progress bar from the screen."""
        if self.bar:
            self.bar.stop()
            self.bar = None


def print_files(console: Console, files: "Sequence[Path]") -> None:
    """One line per written file; never wrapped, so that it can be copied."""
    for path in files:
        console.print(Text(f"  {printable(path, longest=1000)}"), soft_wrap=True)


def _row(cells: "Sequence[str]") -> str:
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, COLUMN_WIDTHS, strict=True))
