"""Certificate, processes: the same global batches and the same gradients on one and on several processes."""

import json
from typing import Any

from mnist_accel.checks.trial_runs import Trials, output_of
from mnist_accel.files.run_record import WEIGHTS_FILE
from mnist_accel.hardware.accelerator import gpu_count

LIMIT = 1e-12
"""Relative, in float64: only the order of additions differs."""
EVALUATED = 10_000


def check(trials: Trials) -> tuple[bool | None, str, dict[str, Any]]:
    """Compare trainings in float64, and evaluations, between one and several processes."""
    count = trials.processes
    if count == 1:
        return None, "this machine can run one process only", {}
    recipe = trials.recipe("exact", dtype="float64", dropout=0.0, epochs=1, batch_size=37)
    common: tuple[object, ...] = ("train", "--recipe", recipe, "--dataset", trials.dataset, "--threads", 1)
    if gpu_count() < count:
        common += ("--cpu",)
    one, several = (run(trials, *common, "--processes", n, "--output-dir", f"of-{n}") for n in (1, count))
    difference = max(abs(several[key] / one[key] - 1) for key in ("train_loss", "test_loss"))
    figures = {"processes": several["world_size"], "difference": difference}
    passed = several["world_size"] == count and difference <= LIMIT
    summary = (
        f"losses in float64 on 1 and {several['world_size']} processes differ by {difference:.0e} (limit {LIMIT:.0e})"
    )
    if trials.is_quick:
        return passed, summary, figures
    common = ("evaluate", "--weights", f"of-1/{WEIGHTS_FILE}", "--dataset", "mnist", "--mixed-precision", "no")
    ways: list[tuple[object, ...]] = [(), ("--batch-size", 37, "--processes", count)]
    results = [run(trials, *common, "--output-dir", "evaluated", *way) for way in ways]
    counts = [(result["correct"], result["samples"]) for result in results]
    texts = " = ".join(f"{correct} of {samples}" for correct, samples in counts)
    passed = passed and len(set(counts)) == 1 and counts[0][1] == EVALUATED
    return passed, f"{summary}; evaluated: {texts} correct", figures | {"correct": counts}


def run(trials: Trials, *arguments: object) -> dict[str, Any]:
    """The JSON object that a command prints."""
    return dict(json.loads(output_of(trials.start(*arguments, "--json")).splitlines()[-1]))
