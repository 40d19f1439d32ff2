"""Between two steps: checks for bad numbers, stop requests and checkpoints; at the start, resuming."""

import signal
from pathlib import Path

from mnist_accel.config.settings import TrainConfig
from mnist_accel.files import checkpoint
from mnist_accel.files.atomic import exists
from mnist_accel.files.checkpoint import Checkpoint, CheckpointError, CheckpointFolder
from mnist_accel.files.run_record import (
    PARTIAL_METRICS_FILE,
    WEIGHTS_FILE,
    append_lines,
    checkpoint_line,
    history_lines,
    record_path,
)
from mnist_accel.hardware.signals import StoppedError, StopRequests
from mnist_accel.training.events import Observer
from mnist_accel.training.optimizer import NumbersError
from mnist_accel.training.setup import Progress, Setup
from mnist_accel.training.state import Facts, capture, restore

STOP_CHECK_STEPS = 8
"""Several processes ask each other this often for stop requests, so all of them stop within that many steps."""
NUMBER_CHECK_STEPS = 64
"""The device is asked this often for bad numbers. From the first one on, it leaves the weights alone by itself."""


class Guard:
    """Saves, stops and resumes one run.

    Args:
        config: its settings.
        who: its identity; see `state.identity`.
        stop: the requests to stop.
        observer: hears notices.
    """

    def __init__(self, config: TrainConfig, who: Facts, stop: StopRequests, observer: Observer) -> None:
        self.config, self.who, self.stop, self.observer = config, who, stop, observer
        self.checkpoints = CheckpointFolder(config.output_dir / checkpoint.FOLDER, config.keep)
        self.epoch_log = config.output_dir / PARTIAL_METRICS_FILE

    def resume(self, setup: Setup) -> Progress:
        """The position to start from: the beginning, or that of the checkpoint that `--resume` asks for.

        Called on every process. The main process alone reads, because other machines may not see its disk.

        Raises:
            CheckpointError: the named checkpoint is missing, damaged, or of another run.
        """
        hardware = setup.hardware
        found = hardware.gather(hardware.together(lambda: self._find_checkpoint() if hardware.is_main else None))[0]
        progress = Progress()
        if found is not None:
            progress, changes = restore(setup, found, self.who)
            if changes:
                self.observer.notice(
                    f"{'; '.join(changes)}: the same samples follow in the same order, but the weights will differ "
                    "from those of the uninterrupted run"
                )
        if hardware.is_main:
            append_lines(self.epoch_log, history_lines(progress.history), restart=True)
        return progress

    def _find_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that `--resume` asks for; None to start at the beginning."""
        wanted, notice = self.config.resume, self.observer.notice
        path = self.config.output_dir if wanted in ("auto", "never") else Path(wanted)
        if not exists(path):
            raise CheckpointError(f"--resume {path}: no such checkpoint or folder", "name another, or give auto")
        inner = path / checkpoint.FOLDER
        folder = CheckpointFolder(inner if inner.is_dir() else path)
        if wanted == "never":
            if unfinished := folder.numbered():
                notice(f"an unfinished run is in {unfinished[-1][1]}: --resume auto continues it; this run starts anew")
            return None
        found = folder.newest_valid(notice)
        is_finished = found is None and record_path(path / WEIGHTS_FILE).exists()
        if is_finished and wanted != "auto":
            text = f"--resume {path}: the run there is finished, and its checkpoints were deleted"
            raise CheckpointError(text, "start a new run in another --output-dir")
        if is_finished:
            notice(f"the run in {path} is finished; this run starts anew")
        elif found is None and wanted != "auto":
            found = checkpoint.read(path)
        if found is not None:
            notice(f"continuing from {found.path}")
        return found

    def after_step(self, setup: Setup, progress: Progress) -> None:
        """Save or stop where that is due. Called on every process.

        Raises:
            StoppedError: the run was asked to stop, and has saved.
            NumbersError: a step of this epoch met a bad number.
        """
        hardware, steps = setup.hardware, progress.epoch * setup.steps_per_epoch + progress.step
        if hardware.heartbeats:
            hardware.heartbeats.position = _position(setup, progress)
        if self.stop.wants_status:
            self.stop.wants_status = False
            self.observer.notice(f"the run is {_position(setup, progress)}")
        if progress.step % NUMBER_CHECK_STEPS == 0 or progress.step == setup.steps_per_epoch:
            self.require_finite(setup, progress)
        if self.config.checkpoint_every and steps % self.config.checkpoint_every == 0:
            self.save(setup, progress)
        if hardware.world_size == 1 or steps % STOP_CHECK_STEPS == 0:
            self.stop_if_requested(setup, progress)

    def after_epoch(self, setup: Setup, progress: Progress) -> None:
        """Log the epoch; save before, unless that is done every `checkpoint_every` steps. Called on every process."""
        if not self.config.checkpoint_every:
            self.save(setup, progress)
        if setup.hardware.is_main:
            append_lines(self.epoch_log, history_lines(progress.history[-1:]))
        self.stop_if_requested(setup, progress)

    def stop_if_requested(self, setup: Setup, progress: Progress) -> None:
        """Save and raise StoppedError if one of the processes was asked to stop."""
        number = max(setup.hardware.gather(self.stop.wanted))
        if not number:
            return
        self.save(setup, progress)
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        message = f"stopped by {name} {_position(setup, progress)}; a checkpoint was saved"
        raise StoppedError(number, message, "continue with --resume auto")

    def save(self, setup: Setup, progress: Progress) -> None:
        """Write a checkpoint of this position. Called on every process; the main process writes."""
        self.observer.part_started("checkpoints")
        self.require_finite(setup, progress)
        tensors, state = capture(setup, progress, self.who)

        def write() -> None:
            if setup.hardware.is_main:
                path = self.checkpoints.save(tensors, state)
                steps = progress.epoch * setup.steps_per_epoch + progress.step
                append_lines(self.epoch_log, checkpoint_line(path, steps))

        setup.hardware.together(write)
        self.observer.part_started("steps")

    def require_finite(self, setup: Setup, progress: Progress) -> None:
        """Raise NumbersError if a step of this epoch met a bad number. Waits for the device; on every process."""
        if progress.sums is None:
            return
        bad = setup.hardware.accelerator.reduce(progress.sums[2], "sum").cpu().nonzero()
        if len(bad):
            raise NumbersError(
                "the loss, a gradient or a weight is infinite or not a number in "
                f"epoch {progress.epoch + 1}, step {int(bad[0]) + 1}; the weights were left as before that step",
                f"lower --lr (it is {self.config.lr:g})"
                + (", or give --mixed-precision no" if setup.hardware.mixed_precision != "no" else ""),
            )


def _position(setup: Setup, progress: Progress) -> str:
    return f"in epoch {progress.epoch + 1}, after step {progress.step} of {setup.steps_per_epoch}"
