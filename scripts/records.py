"""Train a recipe with several seeds: final test accuracy (mean, standard error, lowest) and times.

    python scripts/records.py quick --seeds 30 --results quick.jsonl

Each seed is one run of `mnist-accel train` in a process of its own, and counts with the accuracy after its last epoch.
With `--bare`, an epoch of the bare loop of `cnn` in the same precision is timed after each run, and the training time
is also given as a multiple of it: the same machine differs by two from one day to the next. The table goes to stdout.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mnist_accel.files.run_record import METRICS_FILE
from scripts.evidence import Evidence, add_options

SAMPLES, BATCH_SIZE, STEPS = 60_000, 128, 60
"""Of MNIST; and of the bare loop, whose epoch is extrapolated from so many steps."""


def bare_epoch(precision: str) -> float:
    """Seconds of an epoch of the bare loop."""
    from mnist_accel.checks.bench_worker import Candidate, burst  # imports torch, which --help need not wait for

    candidate = Candidate("", "bare loop", "classic", BATCH_SIZE, precision, steps=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        return SAMPLES / burst(candidate, "mnist", Path(folder))


def run(recipe: str, seed: int, options: list[str]) -> dict[str, Any]:
    """Train once; the accuracy, the times of training and of the whole process, and both figures of each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "--recipe", recipe, "--seed", str(seed), "--output-dir", folder, "--json", "--quiet"]
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "mnist_accel", *words, *options], stdout=subprocess.PIPE, text=True, check=True
        )
        seconds = time.perf_counter() - began
        epochs = [json.loads(line) for line in (Path(folder) / METRICS_FILE).read_text().splitlines()]
    found = json.loads(done.stdout.splitlines()[-1])
    names = ("recipe", "test_accuracy", "train_seconds", "mixed_precision", "device_name", "threads", "parameters")
    curve = [[epoch["train_seconds"], epoch["test_accuracy"]] for epoch in epochs]
    return {name: found[name] for name in names} | {"process_seconds": seconds, "epochs": curve}


def table(trials: list[dict[str, Any]]) -> str:
    """The figures of all seeds."""
    percent = [100 * trial["test_accuracy"] for trial in trials]
    error = statistics.stdev(percent) / len(percent) ** 0.5 if len(percent) > 1 else float("nan")
    rows = {
        "seeds": str(len(trials)),
        "test accuracy, mean ± standard error": f"{statistics.mean(percent):.3f}% ± {error:.3f}",
        "lowest": f"{min(percent):.2f}%",
        "parameters": f"{trials[0]['parameters']:,}",
    }
    columns = {"training, s": "train_seconds", "the whole process, s": "process_seconds"}
    values = {title: [trial[name] for trial in trials] for title, name in columns.items()}
    if all("bare_seconds" in trial for trial in trials):
        values["epoch of the bare loop, s"] = [trial["bare_seconds"] for trial in trials]
        values["training, in such epochs"] = [trial["train_seconds"] / trial["bare_seconds"] for trial in trials]
    rows |= {
        title: f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
        for title, found in values.items()
    }
    rows["machine"] = f"{trials[0]['device_name']}, {trials[0]['threads']} threads, {trials[0]['mixed_precision']}"
    return "\n".join(f"| {name} | {value} |" for name, value in rows.items())


def main() -> None:
    """Run the seeds that the results file does not have, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="time the bare loop after each run")
    parser.add_argument("--mixed-precision", default="auto")
    parser.add_argument("--threads", type=int)
    add_options(parser)
    options = parser.parse_args()
    evidence = Evidence(options.results)
    words = ["--mixed-precision", options.mixed_precision]
    words += ["--threads", str(options.threads)] if options.threads else []
    for seed in evidence.numbers(options.seeds - len(evidence.trials()), options.minutes):
        found = run(options.recipe, options.seed + seed, words)
        if options.bare:
            found["bare_seconds"] = bare_epoch(found["mixed_precision"])
        evidence.add(trial=seed, **found)
        print(f"seed {options.seed + seed}: {found['test_accuracy']:.2%}", file=sys.stderr, flush=True)
    print(table(evidence.trials()))


if __name__ == "__main__":
    main()
