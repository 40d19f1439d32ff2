"""Measure the seconds until the first optimizer step of `mnist-accel train`, and those of `mnist-accel --help`.

    python scripts/benchmark_startup.py

Each run is a new process. The first one fills the file cache and is not counted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 5
FIRST_STEP = """
import os, sys, time
from mnist_accel import cli
from mnist_accel.reports import console
def stop(*_):
    print(time.time())
    sys.stdout.flush()
    os._exit(0)
console.TrainingConsole.step_finished = stop
cli.main()
"""


def main() -> None:
    """Print medians and ranges as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--dataset", default="mnist")
    options = parser.parse_args()
    arguments = ["train", "--data-dir", options.data_dir, "--dataset", options.dataset]
    first_step, help_text = [], []
    for _ in range(RUNS + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.time()
            command = [sys.executable, "-c", FIRST_STEP, *arguments, "--output-dir", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            first_step.append(float(done.stdout) - began)
        began = time.time()
        subprocess.run([sys.executable, "-m", "mnist_accel", "--help"], capture_output=True, check=True)
        help_text.append(time.time() - began)
    print(json.dumps({"runs": RUNS, "first_step_seconds": summary(first_step), "help_seconds": summary(help_text)}))


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, lowest and highest, without the first run."""
    counted = seconds[1:]
    figures = {"median": statistics.median(counted), "lowest": min(counted), "highest": max(counted)}
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    main()
