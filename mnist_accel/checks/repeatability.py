"""Certificate, repeatability: the same training again and again, and which options change bits."""

import time
from pathlib import Path
from typing import Any

import torch

from mnist_accel.checks.arithmetic import precisions
from mnist_accel.checks.trial_runs import Trials
from mnist_accel.files import weights
from mnist_accel.files.run_record import WEIGHTS_FILE
from mnist_accel.hardware.accelerator import accelerator_type
from mnist_accel.hardware.cores import available_cores, has_compiler

SETTINGS: dict[str, Any] = {"recipe": "speedrun", "train_samples": 9600, "batch_size": 32}
"""300 steps, so that two runs have 600."""
GPU_LIMIT = 0.2
"""Relative difference of the weights. GPU kernels may add in any order, and small differences grow over the steps."""


def check(trials: Trials) -> tuple[bool, str, dict[str, Any]]:
    """Repeat a training for `burn_in_seconds`, at least once; then train with other options and compare the weights."""
    settings = SETTINGS | {"dataset": "mnist"}
    first = trials.train("first", **settings)
    began, repeats, different, largest = time.monotonic(), 0, 0, 0.0
    while not repeats or time.monotonic() - began < trials.burn_in_seconds:
        again = trials.train("again", **settings)
        repeats += 1
        different += again.weights_sha256 != first.weights_sha256
        largest = max(largest, difference(trials.folder / "first", trials.folder / "again"))
    table = {}
    for name, changed in {} if trials.is_quick else variants().items():
        result = trials.train("variant", **settings | changed)
        same = result.weights_sha256 == first.weights_sha256
        table[name] = 0.0 if same else difference(trials.folder / "first", trials.folder / "variant")
    on_cpu = accelerator_type() is None
    figures = {"repeats": repeats, "different": different, "largest_difference": largest, "options": table}
    changing = ", ".join(name for name, value in table.items() if value) or "none"
    changing = f"; options that change bits: {changing}" if table else ""
    summary = f"{repeats} of {repeats} repeated trainings are the same, bit for bit"
    if different:
        summary = f"{different} of {repeats} repeated trainings differ, by up to {largest:.1e} of the weights"
    return (
        different == 0 or (not on_cpu and largest < GPU_LIMIT),
        summary + changing,
        figures,
    )


def variants() -> dict[str, dict[str, Any]]:
    """Options that may change bits, with their settings."""
    found: dict[str, dict[str, Any]] = {f"precision {name}": {"mixed_precision": name} for name in precisions()[:-1]}
    found["speedups off"] = {"speedups": False}
    if available_cores() > 1:
        found["threads 1"] = {"threads": 1}
    if has_compiler():
        found["compile"] = {"compile": True}
    return found


def difference(folder: Path, other: Path) -> float:
    """The norm of the difference between the weights of two runs, relative to the norm of the first."""
    first, second = (
        torch.cat(
            [tensor.double().flatten() for tensor in weights.load((place / WEIGHTS_FILE).read_bytes(), place).values()]
        )
        for place in (folder, other)
    )
    return float((first - second).norm() / first.norm())
