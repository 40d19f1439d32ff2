"""Where the time of a run went, over all its restarts, and how much of the machine's peak it used."""

import contextlib
import json
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
from pydantic import BaseModel, NonNegativeFloat, NonNegativeInt, PositiveFloat, TypeAdapter
from torch import Tensor

from mnist_accel.errors import OutputError
from mnist_accel.files import atomic
from mnist_accel.files.untrusted import read_limited
from mnist_accel.models import architectures
from mnist_accel.training.events import Observer, RunFacts
from mnist_accel.training.train import TrainResult

PARTIAL_FILE = "timing.partial.json"
WRITE_SECONDS = 0.2  # a killed run leaves a record that is at most this old
PARTS = ("start-up", "data", "steps", "evaluation", "checkpoints", "pictures")
LARGEST_SIDE, LONG_SECONDS = 8192, 0.02  # of matrices that measure the machine: sides double until a product is long


class TimeSpent(BaseModel):
    """Seconds of a run by part, which sum to its wall time; attempts (1, plus resumes); steps of all attempts."""

    seconds: dict[str, NonNegativeFloat]
    attempts: NonNegativeInt = 1
    steps: NonNegativeInt = 0


class Timing(Observer):
    """An observer that measures the parts of a run; if `is_written`, in a file that survives a crash."""

    def __init__(self, *, is_written: bool = True) -> None:
        self.is_written = is_written
        self.spent = TimeSpent(seconds=dict.fromkeys(PARTS, 0.0))
        self.part, self.since = PARTS[0], time.perf_counter()
        self.path: Path | None = None

    def part_started(self, name: str) -> None:
        self._add()
        self.part = name

    def run_started(self, facts: RunFacts) -> None:
        if self.is_written:
            self.path = Path(facts.output_dir) / PARTIAL_FILE
        if self.path and facts.settings["resume"] != "never":
            with contextlib.suppress(OSError, ValueError):  # there is none, or it is empty after a power failure
                earlier = TimeSpent.model_validate_json(read_limited(self.path, 2**16))
                self.spent.attempts += earlier.attempts
                self.spent.steps += earlier.steps
                for part in PARTS:
                    self.spent.seconds[part] += earlier.seconds.get(part, 0.0)

    def step_finished(self, step: int, sums: Tensor) -> None:  # noqa: ARG002
        self.spent.steps += 1
        if time.perf_counter() - self.since > WRITE_SECONDS:
            self._add()

    def finish(self, steps: int) -> dict[str, object]:
        """The time of a run of `steps` optimizer steps that has finished, as JSON values."""
        self._add()
        if self.path:
            self.path.unlink(missing_ok=True)
        seconds, repeated = self.spent.seconds, max(0, self.spent.steps - steps)
        wall, repeated_seconds = sum(seconds.values()), seconds["steps"] * repeated / max(1, self.spent.steps)
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
        self.since = now
        if self.path:
            temporary = self.path.with_suffix(".tmp")
            try:
                temporary.write_text(self.spent.model_dump_json(), encoding="utf-8")
                temporary.replace(self.path)  # not synced, because it is written often and decides nothing
            except OSError:  # the run reports a full disk itself, when it saves
                self.path = None


def machine_use(result: TrainResult) -> dict[str, float]:
    """Images per second of the last epoch, operations for each, and their share of the speed of matrix products."""
    precision = result.settings["dtype"] if result.mixed_precision == "no" else result.mixed_precision
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision) or getattr(torch, precision)
    model, classes = result.model, len(result.class_names)
    machine = f"{result.device_name}, {result.threads} threads, {precision}, torch {torch.__version__}"
    peak = _kept(machine, lambda: matrix_flop_per_second(torch.device(result.device), dtype, result.threads))
    peak *= result.world_size
    if ":" in model:  # the user's own network, which can change
        flop = flop_per_image(model, classes)
    else:
        flop = _kept(f"{model}, {classes} classes", lambda: flop_per_image(model, classes))
    speed = result.images_per_second
    use = {"images_per_second": speed, "flop_per_image": flop, "matrix_flop_per_second": peak}
    return use | {"peak_share": speed * flop / peak}


def flop_per_image(model: str, classes: int = 10) -> float:
    """Floating-point operations to train a network on one image, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode  # takes a third of a second to import

    with FlopCounterMode(display=False) as counter:
        architectures.build(model, classes=classes).eval()(torch.zeros(2, 1, 28, 28)).sum().backward()
    return float(counter.get_total_flops()) / 2


def matrix_flop_per_second(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """The highest speed of large matrix products on one device."""
    side, seconds, usual_threads = 128, 0.0, torch.get_num_threads()
    torch.set_num_threads(threads)
    while seconds < LONG_SECONDS and side < LARGEST_SIDE:
        side *= 2
        matrix = torch.ones(side, side, dtype=dtype, device=device)
        # Reading an element waits for the device.
        seconds = min(timeit.repeat(lambda: float((matrix @ matrix)[0, 0]), repeat=5, number=1))  # noqa: B023
    torch.set_num_threads(usual_threads)
    return 2 * side**3 / seconds


def _kept(name: str, measure: Callable[[], float]) -> float:
    """What `measure` gave on this machine when it was first called for `name`."""
    path = platformdirs.user_cache_path("mnist-accel") / "machine.json"
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):  # not there yet, or damaged
        known = TypeAdapter(dict[str, PositiveFloat]).validate_json(read_limited(path, 2**20))
    if name not in known:
        known[name] = measure()
        with contextlib.suppress(OSError, OutputError):  # without a cache folder it is measured each time
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.publish({path: json.dumps(known).encode()})
    return known[name]
