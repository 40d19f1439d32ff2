"""Between two steps: checks for bad numbers, stop requests and checkpoints; at the start, resuming."""

import signal
from pathlib import Path

from mnist_accel.config.settings import TrainConfig
from mnist_accel.files import checkpoint, run_record
from mnist_accel.files.atomic import exists
from mnist_accel.files.checkpoint import Checkpoint, CheckpointError, CheckpointFolder
from mnist_accel.hardware.signals import StoppedError, StopRequests
from mnist_accel.training.events import Observer
from mnist_accel.training.optimizer import NumbersError
from mnist_accel.training.setup import Progress, Setup
from mnist_accel.training.state import Facts, capture, restore

STOP_CHECK_STEPS = 8  # several processes ask each other this often for stop requests, and stop within so many steps
NUMBER_CHECK_STEPS = 64  # the device is asked this often for bad numbers; from the first on, it keeps the weights


class Guard:
    """Saves, stops and resumes one run, whose identity is `who` (see `state.identity`). All processes call it alike."""

    def __init__(self, config: TrainConfig, who: Facts, stop: StopRequests, observer: Observer) -> None:
        self.config, self.who, self.stop, self.observer = config, who, stop, observer
        self.checkpoints = CheckpointFolder(config.output_dir / checkpoint.FOLDER, config.keep)
        self.epoch_log = config.output_dir / run_record.PARTIAL_METRICS_FILE

    def resume(self, setup: Setup) -> Progress:
        """The position that `--resume` asks for. The main process reads: other machines may not see its disk."""
        hardware = setup.hardware
        found = hardware.gather(hardware.together(lambda: self._find_checkpoint() if hardware.is_main else None))[0]
        progress = Progress()
        if found is not None:
            progress, changes = restore(setup, found, self.who)
            if changes:
                effect = "the samples follow in the same order, but the weights will differ from an uninterrupted run's"
                self.observer.notice(f"{'; '.join(changes)}: {effect}")
        if hardware.is_main:
            run_record.append_lines(self.epoch_log, run_record.history_lines(progress.history), restart=True)
        return progress

    def _find_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that `--resume` asks for; None to start at the beginning."""
        wanted, notice = self.config.resume, self.observer.notice
        is_named = wanted not in ("auto", "never")
        path = Path(wanted) if is_named else self.config.output_dir
        folder = CheckpointFolder(path / checkpoint.FOLDER)
        folder = folder if folder.numbered() else CheckpointFolder(path)
        if wanted == "never":
            if unfinished := folder.numbered():
                notice(f"an unfinished run is in {unfinished[-1][1]}: --resume auto continues it; this run starts anew")
            return None
        found = folder.newest_valid(notice)
        if found is None and exists(run_record.record_path(path / run_record.WEIGHTS_FILE)):
            if is_named:
                raise CheckpointError(f"--resume {path}: the run there is finished", "start a new one without --resume")
            notice(f"the run in {path} is finished; this run starts anew")
        elif found is None and is_named:
            found = checkpoint.read(path)
        if found is not None:
            notice(f"continuing from {found.path}")
        return found

    def after_step(self, setup: Setup, progress: Progress) -> None:
        """Save or stop where that is due. Raises StoppedError after a stop, NumbersError if a step met a bad number."""
        hardware, steps = setup.hardware, progress.epoch * setup.steps_per_epoch + progress.step
        if hardware.heartbeats:
            hardware.heartbeats.move_to(_position(setup, progress))
        if self.stop.wants_status:
            self.stop.wants_status = False
            self.observer.notice(f"the run is {_position(setup, progress)}")
        if progress.step % NUMBER_CHECK_STEPS == 0 or progress.step == setup.steps_per_epoch:
            self._require_finite(setup, progress)
        if self.config.checkpoint_every and steps % self.config.checkpoint_every == 0:
            self.save(setup, progress)
        if hardware.world_size == 1 or steps % STOP_CHECK_STEPS == 0:
            self._stop_if_requested(setup, progress)

    def after_epoch(self, setup: Setup, progress: Progress) -> None:
        """Log the epoch; save before, unless that is done every `checkpoint_every` steps."""
        if not self.config.checkpoint_every:
            self.save(setup, progress)
        if setup.hardware.is_main:
            run_record.append_lines(self.epoch_log, run_record.history_lines(progress.history[-1:]))
        self._stop_if_requested(setup, progress)

    def _stop_if_requested(self, setup: Setup, progress: Progress) -> None:
        if number := max(setup.hardware.gather(self.stop.wanted)):
            self.save(setup, progress)
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            message = f"stopped by {name} {_position(setup, progress)}; a checkpoint was saved"
            raise StoppedError(number, message, "continue with --resume auto")

    def save(self, setup: Setup, progress: Progress) -> None:
        """Write a checkpoint of this position. The main process writes."""
        self.observer.part_started("checkpoints")
        self._require_finite(setup, progress)
        tensors, state = capture(setup, progress, self.who)

        def write() -> None:
            if setup.hardware.is_main:
                path = self.checkpoints.save(tensors, state)
                steps = progress.epoch * setup.steps_per_epoch + progress.step
                run_record.append_lines(self.epoch_log, run_record.checkpoint_line(path, steps))

        setup.hardware.together(write)
        self.observer.part_started("steps")

    def _require_finite(self, setup: Setup, progress: Progress) -> None:
        """Raise NumbersError if a step of this epoch met a bad number. Waits for the device."""
        if progress.sums is None:
            return
        bad = setup.hardware.accelerator.reduce(progress.sums[2], "sum").cpu().nonzero()
        if len(bad):
            where = f"epoch {progress.epoch + 1}, step {int(bad[0]) + 1}; the weights were left as before that step"
            hint = ", or give --mixed-precision no" if setup.hardware.mixed_precision != "no" else ""
            raise NumbersError(
                f"the loss, a gradient or a weight is infinite or not a number in {where}",
                f"lower --lr (it is {self.config.lr:g}){hint}",
            )


def _position(setup: Setup, progress: Progress) -> str:
    return f"in epoch {progress.epoch + 1}, after step {progress.step} of {setup.steps_per_epoch}"
