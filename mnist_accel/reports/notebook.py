"""Shows a training run in a notebook: a table that grows while the run goes on, then the pictures."""

import html
import io
import re
from typing import TYPE_CHECKING

from rich.console import Console

from mnist_accel.hardware.cores import launched_world_size
from mnist_accel.reports.console import TrainingConsole, headline
from mnist_accel.training.events import Observer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mnist_accel.training.train import TrainResult


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

    def run_finished(self, result: "TrainResult", pictures: "Sequence[Path]") -> None:
        from IPython.display import Image, display

        self.show_result(headline(result), ())
        display(*[Image(path.read_bytes()) for path in pictures if path.exists()])
