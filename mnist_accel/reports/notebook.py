"""Shows a training run in a notebook: one output that grows while the run goes on, then the pictures."""

import html
import io
import re
from typing import TYPE_CHECKING

from rich.console import Console

from mnist_accel.hardware.cores import launched_world_size
from mnist_accel.reports.console import TrainingConsole
from mnist_accel.training.events import Observer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mnist_accel.training.train import TrainResult


def notebook_observer() -> Observer:
    """The observer of a run for which the caller names none: a display in a notebook, silence elsewhere.

    Processes of `accelerate.notebook_launcher` are silent: ipykernel drops what they display.
    """
    return NotebookDisplay() if Console().is_jupyter and not launched_world_size() else Observer()


class Cell(io.StringIO):
    """A text file whose content a notebook shows. Of consecutive progress lines it shows the last one."""

    def __init__(self) -> None:
        from IPython.display import display

        super().__init__()
        self.shown = display({"text/plain": ""}, raw=True, display_id=True)

    def flush(self) -> None:
        text = re.sub(r"(?m)^  epoch \S+  step .*\n(?!\Z)", "", self.getvalue())
        page = f"<pre>{html.escape(text)}</pre>"
        self.shown.update({"text/plain": text, "text/html": page}, raw=True)


class NotebookDisplay(TrainingConsole):
    """An observer that shows a run, and its pictures when it has finished."""

    def __init__(self) -> None:
        super().__init__(Console(file=Cell(), width=120, force_terminal=False, force_jupyter=False))

    def run_finished(self, result: "TrainResult", pictures: "Sequence[Path]") -> None:
        from IPython.display import Image, display

        from mnist_accel.reports.run_summary import headline

        self.show_result(headline(result), ())
        display(*[Image(path.read_bytes()) for path in pictures if path.exists()])
