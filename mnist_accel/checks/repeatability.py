"""Certificate, repeatability: the same training again and again, and which options change bits."""

import sys
import time
from typing import Any

import torch

from mnist_accel.checks.arithmetic import precisions
from mnist_accel.checks.trial_runs import Trials
from mnist_accel.files import weights
from mnist_accel.files.run_record import WEIGHTS_FILE
from mnist_accel.hardware.accelerator import accelerator_type
from mnist_accel.hardware.cores import available_cores, has_compiler
from mnist_accel.training.train import TrainResult

SETTINGS: dict[str, Any] = {"recipe": "speedrun", "dataset": "mnist", "train_samples": 9600, "batch_size": 32}
GPU_LIMIT = 0.2  # relative, of the weights: GPU kernels may add in any order, and differences grow over the 300 steps


def check(trials: Trials) -> tuple[bool, str, dict[str, Any]]:
    """Repeat a training for `burn_in_seconds`, at least once; then train with other options and compare the weights."""
    first = trials.train("first", **SETTINGS)
    differences: list[float] = []
    began = time.monotonic()
    while not differences or time.monotonic() - began < trials.burn_in_seconds:
        differences.append(train_again(trials, first))
    tried = {} if trials.is_quick else variants(trials)
    table = {name: train_again(trials, first, **changed) for name, changed in tried.items()}
    same, repeats, largest = differences.count(0), len(differences), max(differences)
    summary = f"{same} of {repeats} repeated trainings are the same, bit for bit (largest difference {largest:.2g})"
    if table:
        summary += f"; options that change bits: {', '.join(name for name, value in table.items() if value) or 'none'}"
    figures = {"repeats": repeats, "different": repeats - same, "largest_difference": largest, "options": table}
    return same == repeats or (accelerator_type() is not None and largest < GPU_LIMIT), summary, figures


def variants(trials: Trials) -> dict[str, dict[str, Any]]:
    """Options that may change bits, with their settings."""
    found: dict[str, dict[str, Any]] = {f"precision {name}": {"mixed_precision": name} for name in precisions()[:-1]}
    found["speedups off"] = {"speedups": False}
    if available_cores() > 1:
        found["threads 1"] = {"threads": 1}
    if has_compiler():
        found["compile"] = {"compile": True}
    if trials.processes > 1:
        found[f"processes {trials.processes}"] = {"processes": trials.processes}
    return found


def train_again(trials: Trials, first: TrainResult, **changed: Any) -> float:
    """The norm of the difference between the weights of two runs, relative to the first; 0 if all bits are equal."""
    if "processes" in changed:
        found = trials.run("train", output_dir="again", **SETTINGS, **changed)["weights_sha256"]
    else:
        found = trials.train("again", **SETTINGS | changed).weights_sha256
    if found == first.weights_sha256:
        return 0.0
    paths = (trials.folder / name / WEIGHTS_FILE for name in ("first", "again"))
    states = (weights.load(path.read_bytes(), path).values() for path in paths)
    one, other = (torch.cat([tensor.double().flatten() for tensor in state]) for state in states)
    return max(float((one - other).norm() / one.norm()), sys.float_info.min)  # 0 and -0 are different bits
