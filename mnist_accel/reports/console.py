"""Shows a training run on the terminal or in a notebook: its facts, progress (plain lines off a terminal), result."""

import html
import io
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import BarColumn, Progress
from rich.text import Text

from mnist_accel.config.base import count
from mnist_accel.errors import printable
from mnist_accel.hardware.cores import launched_world_size
from mnist_accel.reports.tables import print_files
from mnist_accel.training.events import EpochRecord, Observer, RunFacts

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_accel.training.train import TrainResult

READ_SECONDS = 0.5  # time between two updates of the progress bar. Each reads sums from the device, which waits for it.
LINE_SECONDS = 5.0  # time between two plain progress lines
ROW = "{:>7}  {:>10}  {:>11}  {:>11}  {:>11}  {:>9}  {:>7}"  # of the table of epochs


class TrainingConsole(Observer):
    """An observer that shows a run: the result on `results`, the rest on `console`; notices alone if `quiet`."""

    def __init__(self, console: Console, *, results: Console | None = None, quiet: bool = False) -> None:
        self.notices, self.console, self.results = console, console, results or console
        if quiet:
            self.console = self.results = Console(quiet=True)
        self.seconds_between = READ_SECONDS if console.is_interactive else LINE_SECONDS
        self.bar: Progress | None = None
        self.started = self.updated = time.perf_counter()
        self.has_heading = False

    def notice(self, text: str) -> None:
        self.notices.print(Text(f"NOTICE: {printable(text, longest=1000)}", style="bold yellow"), soft_wrap=True)

    def pictures_read(self, done: int, total: int) -> None:
        if done == total:
            self.close()
        elif self._is_due():
            self._show_progress("pictures", done, total, "", f"{done:,} of {total:,} pictures are read")

    def run_started(self, facts: RunFacts) -> None:
        self.facts = facts
        for name, value in summary(facts).items():
            self.console.print(Text(f"{name + ':':<12}", style="bold").append(printable(value), style="not bold"))

    def epoch_started(self, epoch: int, step: int) -> None:
        self.epoch, self.first_sample = epoch, step * self.facts.batch_size
        self.started = self.updated = time.perf_counter()

    def step_finished(self, step: int, sums: "Tensor") -> None:
        if not self._is_due():
            return
        facts = self.facts
        samples = min((step + 1) * facts.batch_size, facts.train_samples)
        speed = (samples - self.first_sample) / (self.updated - self.started)
        left = ((facts.epochs - self.epoch) * facts.train_samples - samples) / speed
        time_left = f"{left:.0f} s" if left < 120 else f"{left / 60:.0f} min"
        # The sums are of this process's share of the samples. The exact figures come at the end of the epoch.
        loss, accuracy, _ = (sums.sum(dim=1) / samples * facts.world_size).tolist()
        figures = f"loss {loss:.4f}  acc. {accuracy:.2%}  {speed:,.0f} images/s  {time_left} left"
        place, steps = f"epoch {self.epoch + 1}/{facts.epochs}", facts.steps_per_epoch
        self._show_progress(place, step + 1, steps, figures, f"{place}  step {step + 1}/{steps}  {figures}")

    def _is_due(self) -> bool:
        """Whether progress is shown, and was last shown long enough ago; it then counts as shown now."""
        now = time.perf_counter()
        if self.console.quiet or now - self.updated < self.seconds_between:
            return False
        self.updated = now
        return True

    def _show_progress(self, description: str, done: int, total: int, figures: str, line: str) -> None:
        """Update the bar, or start one; off a terminal print `line`."""
        if not self.console.is_interactive:
            self.console.print(Text(f"  {line}"))
            return
        if not self.bar:
            columns = "{task.description}", BarColumn(None), "{task.completed}/{task.total}  {task.fields[figures]}"
            # Without auto_refresh: a drawing thread would take time from the training threads.
            self.bar = Progress(*columns, console=self.console, transient=True, auto_refresh=False)
            self.bar.add_task(description, total=total, figures="")
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done, figures=figures, refresh=True)

    def epoch_finished(self, record: EpochRecord, step_losses: npt.NDArray[np.float32]) -> None:  # noqa: ARG002 the event's arguments
        self.close()
        part, loss, accuracy = "test", record.test_loss, record.test_accuracy
        if record.validation_loss is not None:
            part, loss, accuracy = "valid.", record.validation_loss, record.validation_accuracy
        if not self.has_heading:
            names = ("epoch", "train loss", "train acc.*", f"{part} loss", f"{part} acc.", "images/s", "seconds")
            self.console.print(Text(ROW.format(*names), style="bold"))
            self.has_heading = True
        values = [f"{record.epoch}/{self.facts.epochs}", f"{record.train_loss:.4f}", f"{record.train_accuracy:.2%}"]
        values += [f"{loss:.4f}", f"{accuracy:.2%}", f"{record.images_per_second:,.0f}", f"{record.train_seconds:.1f}"]
        self.console.print(Text(ROW.format(*values)))

    def show_result(self, headline: str, files: Sequence[Path]) -> None:
        if self.has_heading:
            self.console.print(Text(f"* {running_average(self.facts.settings)}; others: after the epoch", style="dim"))
        self.results.print(Text(headline, style="bold"))
        print_files(self.results, files)

    def close(self) -> None:
        """Remove a running progress bar from the screen."""
        if self.bar:
            with suppress(OSError):  # the terminal may be closed
                self.bar.stop()
            self.bar = None


def notebook_observer() -> Observer:
    """A display in a notebook, silence elsewhere and in forked processes, whose output ipykernel drops."""
    return NotebookDisplay() if Console().is_jupyter and not launched_world_size() else Observer()


class NotebookDisplay(TrainingConsole, io.StringIO):
    """An observer that is the text file of its own console, and shows the text whenever the console flushes it."""

    def __init__(self) -> None:
        from IPython.display import display

        io.StringIO.__init__(self)
        super().__init__(Console(file=self, width=120, force_terminal=False, force_jupyter=False))
        self.shown = display({"text/plain": ""}, raw=True, display_id=True)

    def flush(self) -> None:
        # Of consecutive progress lines only the last one is shown.
        text = re.sub(r"(?m)^  epoch \S+  step .*\n(?!\Z)", "", self.getvalue())
        self.shown.update({"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}, raw=True)

    def run_finished(self, result: "TrainResult", pictures: Sequence[Path]) -> None:
        from IPython.display import Image, display

        self.show_result(headline(result), ())
        display(*[Image(path.read_bytes()) for path in pictures if path.exists()])


def summary(facts: RunFacts) -> dict[str, str]:
    """Name and value of each fact that the user sees before the first step."""
    settings = facts.settings
    checkpoint_every, accumulation = settings["checkpoint_every"], settings["gradient_accumulation_steps"]
    share = facts.batch_size / (facts.world_size * accumulation)
    precision = {"no": "fp32" if settings["dtype"] == "float32" else "fp64"}.get(facts.mixed_precision)
    return {
        "model": f"{facts.model}, {facts.parameters:,} parameters",
        "recipe": f"{facts.recipe}: {_recipe(settings)}",
        "data": f"{facts.dataset}: {facts.train_samples:,} training, {facts.test_samples:,} test images "
        f"from {facts.source}"
        + (f"; the test images are part {settings['fold']} of the training set" if settings.get("fold") else "")
        + (f"; {facts.validation_samples:,} more held out for validation" if facts.validation_samples else ""),
        "device": f"{facts.device}: {facts.device_name}",
        "processes": f"{facts.world_size}, each with {count(facts.threads, 'CPU thread')}"
        + (f"; gradients are exchanged through {facts.exchange}" if facts.exchange else ""),
        "precision": f"{precision or facts.mixed_precision} ({facts.precision_reason})"
        + (", compiled" if settings["compile"] else ""),
        "batch": f"{facts.batch_size} samples per step = {count(facts.world_size, 'process', 'es')} × "
        f"{accumulation} accumulation × {share:g}; {count(facts.steps_per_epoch, 'step')} per epoch",
        "checkpoint": (f"every {count(checkpoint_every, 'step')}" if checkpoint_every else "after each epoch")
        + f"; the newest {settings['keep']} are kept",
        "output": str(Path(facts.output_dir).absolute()),
    }


def headline(result: "TrainResult") -> str:
    """The result of a run in one sentence. A resumed run has trained for longer than this call took."""
    total = "for this call, after a resume" if result.train_seconds > result.wall_seconds else "in total"
    return (
        f"{printable(result.dataset)}: test accuracy {result.test_accuracy:.2%} with the weights of epoch "
        f"{result.chosen_epoch}; {result.train_seconds:.1f} s of training, {result.wall_seconds:.1f} s {total}"
    )


def group_headline(values: Mapping[str, Any]) -> str:
    """The result of a group of runs in one sentence, from `Group.as_json`."""
    text = f"{count(len(values['runs']), 'run')}: mean test accuracy {values['mean']:.3%}"
    if values["ci95"] is None:
        return text
    low, high = values["ci95"]
    return f"{text} ± {100 * values['standard_error']:.3f} (standard error); 95% interval {low:.3%} to {high:.3%}"


def running_average(settings: Mapping[str, Any]) -> str:
    """How the training figures of an epoch are measured. Names dropout and augmentation only if they are on."""
    noise = [text for text in ("dropout", "augmentation") if text in _recipe(settings)]
    return "running average" + (f", with {' and '.join(noise)}" if noise else "")


def _recipe(settings: Mapping[str, Any]) -> str:
    """The main settings of a recipe. Its dropout does not reach a network of the user's own."""
    parts = [
        count(settings["epochs"], "epoch"),
        f"Adam, learning rate {settings['lr']:g}"
        + (" at the peak of one cycle" if settings["schedule"] == "one-cycle" else ""),
        f"dropout {settings['dropout']:g}" if settings["dropout"] and ":" not in settings["model"] else "",
        f"label smoothing {settings['label_smoothing']:g}" if settings["label_smoothing"] else "",
        "augmentation" if any(settings[name] for name in ("rotation", "shift", "scale")) else "",
        "averaged weights" if settings["average"] else "",
        f"seed {settings['seed']}",
    ]
    return ", ".join(filter(None, parts))
