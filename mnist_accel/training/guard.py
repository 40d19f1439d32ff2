"""What happens between two steps so that nothing is lost: bad numbers, stop requests, checkpoints, resuming."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import UserError
from mnist_accel.files import checkpoint
from mnist_accel.files.checkpoint import CheckpointError
from mnist_accel.hardware.signals import StoppedError, StopRequests
from mnist_accel.training import state as snapshot
from mnist_accel.training.events import Observer
from mnist_accel.training.loop import Progress, Training

STOP_CHECK_STEPS = 8
"""Several processes ask each other this often whether one was told to stop, so all stop within that many steps."""
NUMBER_CHECK_STEPS = 64
"""The device is asked this often for bad numbers; from the first one on it leaves the weights alone by itself."""


class NumbersError(UserError):
    """A loss or gradient that is infinite or not a number."""

    exit_code = 1
    is_shared = True


class Guard:
    """Watches over one run.

    Args:
        who: the run's `snapshot.identity`.
        stop: where requests to stop arrive.
    """

    def __init__(self, config: TrainConfig, who: dict[str, Any], stop: StopRequests, observer: Observer) -> None:
        self.config = config
        self.folder = config.output_dir / checkpoint.FOLDER
        self.who = who
        self.stop = stop
        self.observer = observer
        self.saved_at: tuple[int, int] | None = None

    def resume(self, training: Training) -> Progress:
        """Where to begin: at the start, or where the checkpoint that `--resume` means left off. On every process.

        Raises:
            CheckpointError: the named checkpoint is missing or damaged, or of another run.
        """
        wanted = self.config.resume
        if wanted == "never":
            unfinished = checkpoint.numbered(self.folder)
            if unfinished:
                self.observer.notice(
                    f"an unfinished run is in {unfinished[-1][1]}: --resume auto continues it; this run starts anew"
                )
            return Progress()

        # Read by the main process alone: other machines may not see its disk.
        machine = training.hardware
        state = machine.from_main(machine.together(lambda: self._read(wanted) if machine.is_main else None))
        if state is None:
            return Progress()
        progress = snapshot.restore(training, state, self.who)
        if changes := snapshot.environment_changes(state, machine):
            self.observer.notice(
                f"{'; '.join(changes)}: the same samples follow in the same order, but the weights will differ from "
                "those of the uninterrupted run"
            )
        self.saved_at = (progress.epoch, progress.step)
        return progress

    def _read(self, wanted: str) -> dict[str, Any] | None:
        """The state in the checkpoint that `--resume` means; None when "auto" finds none."""
        folder = self.folder if wanted == "auto" else Path(wanted)
        if (folder / checkpoint.FOLDER).is_dir():
            folder /= checkpoint.FOLDER
        path: Path | None = folder
        if wanted == "auto" or checkpoint.numbered(folder):
            path = checkpoint.newest_whole(folder, self.observer.notice)
        if path is None:
            if wanted == "auto":
                return None
            raise CheckpointError(f"--resume {wanted}: no checkpoint in it is whole", "give another, or never")
        state = checkpoint.read(path)
        self.observer.notice(f"continuing from {path}")
        return state

    def after_step(self, training: Training, progress: Progress) -> None:
        """Stop or save where that is due. On every process.

        Raises:
            StoppedError: after saving.
            NumbersError: a step of this epoch met a bad number.
        """
        steps = progress.epoch * training.steps_per_epoch + progress.step
        if progress.step % NUMBER_CHECK_STEPS == 0 or progress.step == training.steps_per_epoch:
            require_finite(training, progress)
        every = self.config.checkpoint_every
        if every and steps % every == 0:
            self.save(training, progress)
        if training.hardware.world_size == 1 or steps % STOP_CHECK_STEPS == 0:
            self.stop_if_wanted(training, progress)

    def after_epoch(self, training: Training, progress: Progress) -> None:
        """Save unless that is done every so many steps. On every process."""
        if not self.config.checkpoint_every:
            self.save(training, progress)
        self.stop_if_wanted(training, progress)

    def stop_if_wanted(self, training: Training, progress: Progress) -> None:
        """Save and raise `StoppedError` when one of the processes was told to stop."""
        number = training.hardware.largest(self.stop.wanted)
        if not number:
            return
        self.save(training, progress)
        where = f"in epoch {progress.epoch + 1}, after step {progress.step} of {training.steps_per_epoch}"
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        raise StoppedError(number, f"stopped by {name} {where}; nothing is lost", "continue with --resume auto")

    def save(self, training: Training, progress: Progress) -> None:
        """Write a checkpoint of this very position, once. On every process; the main process writes."""
        if self.saved_at == (progress.epoch, progress.step):
            return
        require_finite(training, progress)
        state = snapshot.capture(training, progress, self.who)

        def write() -> None:
            if training.hardware.is_main:
                checkpoint.save(self.folder, state, self.config.keep)

        training.hardware.together(write)
        self.saved_at = (progress.epoch, progress.step)


def require_finite(training: Training, progress: Progress) -> None:
    """Raise where a step of this epoch met a loss or gradient that is no finite number. Waits for the device.

    Raises:
        NumbersError: naming the first such step.
    """
    if progress.sums is None:
        return
    bad = training.hardware.accelerator.reduce(progress.sums.bad, "sum").cpu().nonzero()
    if len(bad):
        step = int(bad[0])
        raise NumbersError(
            "the loss, a gradient or a weight is infinite or not a number in epoch "
            f"{progress.epoch + 1}, step {step + 1}; the weights were left as they were before that step",
            f"lower --lr (it is {training.config.lr:g})"
            + (", or give --mixed-precision no" if training.hardware.mixed_precision != "no" else ""),
        )
