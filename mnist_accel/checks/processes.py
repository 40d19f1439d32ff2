"""Certificate, processes: the same global batches and the same gradients on one and on several processes."""

from typing import Any

from mnist_accel.checks.trial_runs import Trials
from mnist_accel.files.run_record import WEIGHTS_FILE
from mnist_accel.hardware.accelerator import gpu_count

LIMIT = 1e-12  # relative, in float64: only the order of additions differs


def check(trials: Trials) -> tuple[bool | None, str, dict[str, Any]]:
    """Compare trainings in float64, and evaluations, between one and several processes."""
    count = trials.processes
    if count == 1:
        return None, "this machine can run one process only", {}
    recipe = trials.folder / "exact.toml"
    recipe.write_text('dtype = "float64"\ndropout = 0.0\nepochs = 1\nbatch_size = 37\nthreads = 1\n')
    settings: dict[str, Any] = {"recipe": str(recipe), "dataset": trials.dataset, "cpu": gpu_count() < count}
    one = vars(trials.train("one", **settings))
    several = trials.run("train", processes=count, output_dir="several", **settings)
    difference = max(abs(several[key] / one[key] - 1) for key in ("train_loss", "test_loss"))
    world_size = several["world_size"]
    figures = {"processes": world_size, "difference": difference}
    passed = world_size == count and difference <= LIMIT
    summary = f"losses in float64 on 1 and {world_size} processes differ by {difference:.0e} (limit {LIMIT:.0e})"
    if trials.is_quick:
        return passed, summary, figures
    settings = {"dataset": "mnist", "cpu": gpu_count() < count, "mixed_precision": "no", "output_dir": "evaluated"}
    weights = trials.folder / "one" / WEIGHTS_FILE
    ways: list[dict[str, Any]] = [{}, {"batch_size": 37, "processes": count}]
    results = [trials.run("evaluate", weights=weights, **settings, **way) for way in ways]
    counts = [(result["correct"], result["samples"]) for result in results]
    texts = " = ".join(f"{correct} of {samples}" for correct, samples in counts)
    passed = passed and len(set(counts)) == 1 and counts[0][1] == 10_000  # MNIST's test set
    return passed, f"{summary}; evaluated: {texts} correct", figures | {"correct": counts}
