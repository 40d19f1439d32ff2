"""Where the time of a run went, over all its restarts."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt

from mnist_accel.files.untrusted import read_limited
from mnist_accel.training.events import Observer

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_accel.training.events import RunFacts

PARTIAL_FILE = "timing.partial.json"
WRITE_SECONDS = 0.2
"""A killed run leaves a record that is at most this old."""
PARTS = ("start-up", "data", "steps", "evaluation", "checkpoints", "pictures")


class TimeSpent(BaseModel):
    """Seconds of a run by part; the parts sum to the wall time of all its attempts.

    Attributes:
        attempts: 1, and 1 for each resume.
        steps: optimizer steps made in all attempts.
    """

    seconds: dict[str, NonNegativeFloat]
    attempts: NonNegativeInt = 1
    steps: NonNegativeInt = 0


class Timing(Observer):
    """An observer that measures the parts of a run.

    Args:
        is_written: keep the sums in a file that survives a crash, as one process of a run does.
    """

    def __init__(self, *, is_written: bool = True) -> None:
        self.is_written = is_written
        self.spent = TimeSpent(seconds=dict.fromkeys(PARTS, 0.0))
        self.part, self.since, self.written = PARTS[0], time.perf_counter(), 0.0
        self.path: Path | None = None

    def part_started(self, name: str) -> None:
        self._add()
        self.part = name

    def run_started(self, facts: "RunFacts") -> None:
        if self.is_written:
            self.path = Path(facts.output_dir) / PARTIAL_FILE
        if not self.path or facts.settings["resume"] == "never" or not self.path.exists():
            return
        try:
            earlier = TimeSpent.model_validate_json(read_limited(self.path, 2**16))
        except (OSError, ValueError):  # after a power failure it can be empty
            return
        self.spent.attempts += earlier.attempts
        self.spent.steps += earlier.steps
        for part, seconds in earlier.seconds.items():
            self.spent.seconds[part] = self.spent.seconds.get(part, 0.0) + seconds

    def step_finished(self, step: int, sums: "Tensor") -> None:  # noqa: ARG002
        self.spent.steps += 1
        if time.perf_counter() - self.written > WRITE_SECONDS:
            self._add()

    def finish(self, steps: int) -> dict[str, object]:
        """The time of a run of `steps` optimizer steps that has finished, as JSON values."""
        self._add()
        if self.path:
            self.path.unlink(missing_ok=True)
        seconds, made = self.spent.seconds, self.spent.steps
        wall, repeated = sum(seconds.values()), max(0, made - steps)
        repeated_seconds = seconds["steps"] * repeated / max(1, made)
        return {
            "wall_seconds": wall,
            "seconds": seconds,
            "attempts": self.spent.attempts,
            "repeated_steps": repeated,
            "repeated_seconds": repeated_seconds,
            "goodput": (seconds["steps"] - repeated_seconds) / wall,
        }

    def _add(self) -> None:
        """Add the time since the last call to the current part, and write the sums."""
        now = time.perf_counter()
        self.spent.seconds[self.part] += now - self.since
        self.since = self.written = now
        if self.path:
            temporary = self.path.with_suffix(".tmp")
            try:
                temporary.write_text(self.spent.model_dump_json(), encoding="utf-8")
                temporary.replace(self.path)  # not synced, because it is written often and decides nothing
            except OSError:  # this file decides nothing; the run reports a full disk itself, when it saves
                self.path = None
