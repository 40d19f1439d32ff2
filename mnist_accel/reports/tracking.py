"""Sends the figures of a run to experiment trackers, through the trackers of Accelerate."""

import contextlib
import json
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from mnist_accel.errors import UserError, did_you_mean, printable
from mnist_accel.files import atomic
from mnist_accel.files.untrusted import read_limited
from mnist_accel.training.events import EpochRecord, Observer, RunFacts
from mnist_accel.training.train import TrainResult

PROJECT = "mnist-accel"
STATE_FILE = "tracking.partial.json"  # names of the tracked runs, and the last tracked epoch, of an unfinished run


class Tracking(Observer):
    """An observer that tracks a run. After a resume it continues the same tracked run, and tracks no epoch twice.

    The figures of an epoch, and the losses of its steps, are tracked after the epoch. Trackio writes in the background,
    twice a second: it can lose the last epoch of a killed run. Raises UserError if a tracker is unknown or missing.
    """

    def __init__(self, names: Sequence[str], notice: Callable[[str], None]) -> None:
        installed = {str(tracker.value) for tracker in get_available_trackers()}
        for name in names:
            if name not in LOGGER_TYPE_TO_CLASS:
                raise UserError(f"--track {printable(name, 50)}: unknown", did_you_mean(name, LOGGER_TYPE_TO_CLASS))
            if name not in installed:
                raise UserError(f"--track {name}: it is not installed", f"pip install {name.replace('_', '-')}")
        self.names, self.tell = dict.fromkeys(names), notice

    def run_started(self, facts: RunFacts) -> None:
        self.facts, self.path = facts, Path(facts.output_dir) / STATE_FILE
        self.state: dict[str, Any] = {"run": uuid.uuid4().hex[:12], "epoch": 0}
        if is_resumed := facts.settings["resume"] != "never" and self.path.exists():
            self.state = json.loads(read_limited(self.path, 2**16))
        self.trackers: dict[str, Any] = {}
        for name in self.names:
            with self._failing_once(name):
                self._start(name, is_resumed=is_resumed)
        self._save()

    def _start(self, name: str, *, is_resumed: bool) -> None:
        folder, run = self.path.parent.absolute(), self.state["run"]
        options = {
            "tensorboard": {"run_name": name, "logging_dir": folder},
            "mlflow": {"experiment_name": PROJECT, "run_name": run, "run_id": self.state.get("mlflow")},
            "trackio": {"run_name": PROJECT, "name": run, "resume": "allow"},
            "wandb": {"run_name": PROJECT, "id": run, "resume": "allow", "dir": str(folder)},
            "swanlab": {"run_name": PROJECT, "id": run, "resume": "allow", "logdir": str(folder)},
            "dvclive": {"run_name": PROJECT, "dir": str(folder / name), "resume": is_resumed},
        }
        tracker = LOGGER_TYPE_TO_CLASS[name](**options.get(name, {"run_name": PROJECT}))
        tracker.start()
        if name == "mlflow":
            self.state["mlflow"] = tracker.tracker.info.run_id
        if not is_resumed:
            facts = {"model": self.facts.model, "parameters": self.facts.parameters, "device": self.facts.device_name}
            tracker.store_init_configuration({**self.facts.settings, **facts})
        self.trackers[name] = tracker

    def epoch_finished(self, record: EpochRecord, step_losses: npt.NDArray[np.float32]) -> None:
        if record.epoch <= self.state["epoch"]:  # tracked before the run was interrupted
            return
        last = record.epoch * self.facts.steps_per_epoch
        figures = {name: value for name, value in vars(record).items() if value is not None and name != "epoch"}
        for step, loss in enumerate(step_losses.tolist(), last - len(step_losses) + 1):
            self._log({"step_loss": loss} | (figures if step == last else {}), step)
        self.state["epoch"] = record.epoch
        self._save()

    def run_finished(self, result: TrainResult, pictures: Sequence[Path]) -> None:
        self._log({"final_test_accuracy": result.test_accuracy, "final_test_loss": result.test_loss}, result.steps)
        for name, tracker in list(self.trackers.items()):
            options = {"dataformats": "NHWC"} if name == "tensorboard" else {}
            with self._failing_once(name):
                for path in pictures if hasattr(tracker, "log_images") else ():
                    pixels = np.asarray(Image.open(path).convert("RGB"))[np.newaxis]  # (1, H, W, 3)
                    tracker.log_images({path.stem: pixels}, step=result.steps, **options)
                # Trackio's own method would be repeated at exit, and print on stdout.
                (import_module(name) if name == "trackio" else tracker).finish()
        self.path.unlink(missing_ok=True)

    def _log(self, values: dict[str, float], step: int) -> None:
        for name, tracker in list(self.trackers.items()):
            with self._failing_once(name):
                tracker.log(values, step=step)

    @contextlib.contextmanager
    def _failing_once(self, name: str) -> Iterator[None]:
        """Nothing inside prints on stdout; a failure turns the tracker off."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        except Exception as error:  # a tracker can fail in any way: no network, no disk, a defect
            self.trackers.pop(name, None)
            reason = printable(f"{type(error).__name__}: {error}", 200)
            self.tell(f"{name} failed ({reason}); the run continues without it")

    def _save(self) -> None:
        atomic.publish({self.path: json.dumps(self.state).encode()})
