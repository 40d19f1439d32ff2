"""A run on the screen: rich panels, bars and tables on a terminal, plain lines elsewhere. All of it goes to stderr."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mnist_accel.training.events import EpochRecord, Plan, StepSums

READ_SECONDS = 0.5
"""Between two looks at the sums of a running epoch; each look waits for the device."""
LINE_SECONDS = 5.0
"""Between two plain progress lines."""
FOOTNOTE = (
    "* running average over the epoch, under dropout and distortions; the other figures are of the weights after it"
)


def stderr_console() -> Console:
    """A console on stderr; lines are wrapped on a terminal alone."""
    console = Console(stderr=True, highlight=False)
    return console if console.is_terminal else Console(stderr=True, highlight=False, soft_wrap=True)


class TrainingConsole:
    """Shows a training run.

    Args:
        quiet: notices only.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self.console = console
        self.quiet = quiet
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.started = self.looked = 0.0
        self.first_sample = 0
        self.has_heading = False

    def notice(self, text: str) -> None:
        if self.console.is_terminal:
            self.console.print(Panel(Text(text), title="Please note", border_style="bold yellow", title_align="left"))
        else:
            self.console.print(Text(f"NOTICE: {text}"))

    def download(self, file: str, received: int, total: int | None) -> None:
        if self.quiet:
            return
        if not self.console.is_terminal:
            if received == total:
                self.console.print(Text(f"downloaded {file}: {received:,} bytes"))
            return
        if self.bar is None:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            self.bar.start()
        task = next((task for task in self.bar.tasks if task.description == file), None)
        number = task.id if task else self.bar.add_task(file, total=total)
        self.bar.update(number, completed=received, total=total)

    def run_started(self, plan: Plan) -> None:
        self.close()
        self.plan = plan
        if self.quiet:
            return
        if self.console.is_terminal:
            facts = Table.grid(padding=(0, 2))
            for name, value in plan.facts.items():
                facts.add_row(Text(name, style="bold"), Text(value))
            self.console.print(Panel(facts, title="mnist-accel train", title_align="left", border_style="blue"))
        else:
            for name, value in plan.facts.items():
                self.console.print(Text(f"{name + ':':<12}{value}"))

    def epoch_started(self, epoch: int, step: int) -> None:
        self.started = self.looked = time.perf_counter()
        self.first_sample = step * self.plan.batch_size
        if self.quiet or not self.console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("step {task.completed}/{task.total}  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            auto_refresh=False,  # a drawing thread would take time from the training threads
        )
        description = f"epoch {epoch + 1}/{self.plan.epochs}"
        self.task = self.bar.add_task(description, total=self.plan.steps_per_epoch, completed=step, figures="")
        self.bar.start()

    def step_finished(self, step: int, sums: StepSums) -> None:
        now = time.perf_counter()
        if self.quiet or now - self.looked < (READ_SECONDS if self.bar else LINE_SECONDS):
            return
        self.looked = now
        done = step + 1
        samples = min(done * self.plan.batch_size, self.plan.train_samples)
        speed = (samples - self.first_sample) / (now - self.started)
        # This process' share of the samples; the exact figures over all processes come with the epoch.
        loss = float(sums.losses.sum()) / max(1, sums.samples)
        accuracy = float(sums.correct.sum()) / max(1, sums.samples)
        figures = f"loss {loss:.4f}  acc. {accuracy:.2%}  {speed:,.0f} images/s"
        if self.bar:
            self.bar.update(self.task, completed=done, figures=figures)
            self.bar.refresh()
        else:
            left = (self.plan.train_samples - samples) / speed
            self.console.print(Text(f"  step {done}/{self.plan.steps_per_epoch}  {figures}  {left:.0f} s left"))

    def epoch_finished(self, record: EpochRecord) -> None:
        self.close()
        if self.quiet:
            return
        held_out = record.validation_loss is not None
        loss = record.validation_loss if held_out else record.test_loss
        accuracy = record.validation_accuracy if held_out else record.test_accuracy
        if not self.has_heading:
            name = "valid." if held_out else "test"
            columns = ("epoch", "train loss", "train acc.*", f"{name} loss", f"{name} acc.", "images/s", "seconds")
            self.console.print(Text("  ".join(f"{column:>11}" for column in columns), style="bold"))
            self.has_heading = True
        values = (
            f"{record.epoch}/{self.plan.epochs}",
            f"{record.train_loss:.4f}",
            f"{record.train_accuracy:.2%}",
            f"{loss:.4f}",
            f"{accuracy:.2%}",
            f"{record.images_per_second:,.0f}",
            f"{record.train_seconds:.1f}",
        )
        self.console.print(Text("  ".join(f"{value:>11}" for value in values)))

    def run_finished(self, headline: str, files: list[Path]) -> None:
        """The closing summary: the result, and where the files are."""
        self.close()
        if self.quiet:
            return
        self.console.print(Text(FOOTNOTE, style="dim"))
        lines = Text(headline, style="bold")
        for path in files:
            lines.append(f"\n  {path}", style="not bold")
        self.console.print(Panel(lines, border_style="green") if self.console.is_terminal else lines)

    def close(self) -> None:
        """Take a running bar off the screen."""
        if self.bar:
            self.bar.stop()
            self.bar = None
