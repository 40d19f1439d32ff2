"""One candidate of a benchmark, in a process (or several) of its own: a line on stdin is a burst of steps, timed.

Started by `bench.py`: `python -m mnist_accel.bench_worker CANDIDATE_AS_JSON`.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from mnist_accel.checks import baselines
from mnist_accel.checks.bench import FORMATS, Candidate
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.datasets import DIGITS, DataSet, Digits
from mnist_accel.hardware.accelerator import Hardware, start_hardware
from mnist_accel.hardware.cores import available_cores
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import architectures as models
from mnist_accel.reports.console import TrainingConsole
from mnist_accel.speed import keep_freed_memory
from mnist_accel.training import loop as engine
from mnist_accel.training.events import Plan
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import Progress, Training

BURSTS_AN_EPOCH = 5
"""Of 100 steps each: about an epoch of MNIST, in which the progress bar starts and a checkpoint is written once."""

MATRIX_SIDE, MATRIX_PRODUCTS = 2048, 20

Burst = Callable[[], float]
"""Runs a candidate's steps; seconds."""


def random_digits(samples: int) -> Digits:
    """Speed does not depend on what the images show."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (samples, 28, 28), dtype=np.uint8)
    return Digits(images, generator.integers(0, 10, samples))


def main() -> None:
    """Set up, then serve."""
    candidate = Candidate(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        if candidate.kind == "ours":
            serve_ours(candidate, Path(folder))
        else:
            serve(baseline_burst(candidate), lambda line: line, {})
    sys.stdout.flush()
    os._exit(0)  # see commands/common.py: threads of a process group can abort in the interpreter's end


def serve(burst: Burst, share: Callable[[str], str], more: Mapping[str, Callable[[], dict[str, Any]]]) -> None:
    """Answer each line on stdin until "end": a burst, or one of `more` by its name."""
    burst()
    is_main = int(os.environ.get("RANK", "0")) == 0
    answer: Any = "ready"
    while True:
        if is_main:
            print(json.dumps(answer), file=sys.__stdout__, flush=True)  # a progress bar takes sys.stdout
        line = share(sys.stdin.readline().strip() if is_main else "")
        if line in ("end", ""):
            return
        answer = more.get(line, burst)()


def baseline_burst(candidate: Candidate) -> Burst:
    """A baseline's burst."""
    torch.set_num_threads(available_cores())
    if candidate.kind == "bare, our model and allocator":
        keep_freed_memory(True)
        model = models.build(candidate.model, dropout=0.5)
    else:
        model = baselines.plain_cnn()
    digits = random_digits(20_000)
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    device = torch.device("cpu") if candidate.cpu else torch.accelerator.current_accelerator() or torch.device("cpu")
    if candidate.kind == "plain script":
        step = baselines.plain_script(images, labels, device, candidate.batch_size)
    else:
        is_bf16 = candidate.mixed_precision == "bf16"
        step = baselines.bare_loop(model, images, labels, device, candidate.batch_size, is_bf16=is_bf16)

    def burst() -> float:
        began = time.perf_counter()
        for _ in range(candidate.steps):
            step()
        _wait(device)
        return time.perf_counter() - began

    return burst


def serve_ours(candidate: Candidate, folder: Path) -> None:
    """This package's loop, with its progress bar, metrics and checkpoints."""
    config = TrainConfig(
        recipe=candidate.recipe,
        mixed_precision=candidate.mixed_precision,
        compile=candidate.compile,
        cpu=candidate.cpu,
        timeout=3600,
        output_dir=folder,
    )
    machine = start_hardware(
        cpu=config.cpu,
        mixed_precision=config.mixed_precision,
        threads=config.threads,
        timeout=config.timeout,
        compiled=config.compile,
        speedups=candidate.memory_format == FORMATS[0],
    )
    digits = random_digits(candidate.steps * config.batch_size)
    dataset = DataSet("random", digits, digits, DIGITS, "", {})
    memory_format = torch.contiguous_format if candidate.memory_format == "contiguous" else torch.channels_last
    training = engine.prepare(config, machine, dataset, memory_format=memory_format)
    screen = Console(file=Path(os.devnull).open("w"), force_terminal=machine.is_main)  # noqa: SIM115  # to the end
    console = TrainingConsole(screen)
    console.run_started(Plan({}, config.epochs, training.steps_per_epoch, config.batch_size, len(digits)))
    guard = Guard(config, {}, StopRequests(), console)
    bursts = 0

    def burst() -> float:
        nonlocal bursts
        progress = Progress()
        began = time.perf_counter()
        if bursts % BURSTS_AN_EPOCH == 0:
            console.epoch_started(0, 0)
        engine.train_epoch(training, progress, console, guard)
        if bursts % BURSTS_AN_EPOCH == BURSTS_AN_EPOCH - 1:
            guard.saved_at = None
            guard.save(training, progress)
            console.close()
        _wait(machine.device)
        bursts += 1
        return time.perf_counter() - began

    questions = {"split": lambda: split(training, machine, burst), "facts": lambda: facts(training, machine)}
    serve(burst, machine.from_main, questions)


def split(training: Training, machine: Hardware, burst: Burst) -> dict[str, float]:
    """Seconds a step of data, forward, backward, optimizer, the rest, and of the exchange within backward."""
    plain, steps = burst(), training.steps_per_epoch
    seconds = dict.fromkeys(("data", "forward", "backward", "optimizer"), 0.0)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(work)
        def run(*arguments: Any, **keywords: Any) -> Any:
            _wait(machine.device)
            began = time.perf_counter()
            result = work(*arguments, **keywords)
            _wait(machine.device)
            seconds[name] += time.perf_counter() - began
            return result

        return run

    accelerator, model, optimizer = machine.accelerator, training.model, training.optimizer
    wrapped = {
        (training.train, "batch"): "data",
        (model, "forward"): "forward",
        (accelerator, "backward"): "backward",
        (optimizer, "step"): "optimizer",
    }
    originals = {place: getattr(*place) for place in wrapped}
    for (owner, attribute), name in wrapped.items():
        setattr(owner, attribute, timed(name, originals[owner, attribute]))
    whole = burst()
    exchanged = seconds["backward"]
    parts = {name: total / steps for name, total in seconds.items()}
    parts["rest"] = max(0.0, whole / steps - sum(parts.values()))
    if machine.world_size > 1:
        with accelerator.no_sync(model):
            seconds["backward"] = 0.0
            burst()
        parts["communication"] = max(0.0, exchanged - seconds["backward"]) / steps
        parts["backward"] -= parts["communication"]
    for (owner, attribute), original in originals.items():
        setattr(owner, attribute, original)
    return parts | {"whole": plain / steps}


def facts(training: Training, machine: Hardware) -> dict[str, Any]:
    """The device, the work of training on one image, and the fastest arithmetic seen in large matrix products."""
    images, _ = training.train.batch(slice(0, 1))
    model = training.module.eval()
    with FlopCounterMode(display=False) as counter, machine.accelerator.autocast():
        model(images).sum().backward()
    training.optimizer.zero_grad()
    peaks = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        matrix = torch.ones(MATRIX_SIDE, MATRIX_SIDE, dtype=dtype, device=machine.device)
        seconds = []
        for _ in range(MATRIX_PRODUCTS):
            began = time.perf_counter()
            matrix @ matrix
            _wait(machine.device)
            seconds.append(time.perf_counter() - began)
        peaks[name] = 2 * MATRIX_SIDE**3 / min(seconds)
    return {
        "device": machine.device_name,
        "threads": machine.threads,
        "torch": str(torch.__version__),
        "flop_per_image": counter.get_total_flops(),
        "matrix_flop_per_second": peaks,
    }


def _wait(device: torch.device) -> None:
    """Until an accelerator has done all that was asked of it."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


if __name__ == "__main__":
    main()
