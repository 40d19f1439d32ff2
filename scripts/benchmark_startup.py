"""Measure the seconds until the first optimizer step of `mnist-accel train`, beside `import torch` and `--help`.

    python scripts/benchmark_startup.py

Each run is a new process, and the three take turns. The first round fills the file cache and is not counted.
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
    first_step: list[float] = []
    help_text: list[float] = []
    torch_alone: list[float] = []
    for _ in range(RUNS + 1):
        with tempfile.TemporaryDirectory() as folder:
            began = time.time()
            command = [sys.executable, "-c", FIRST_STEP, *arguments, "--output-dir", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            first_step.append(float(done.stdout) - began)
        for found, command in ((torch_alone, ["-c", "import torch"]), (help_text, ["-m", "mnist_accel", "--help"])):
            began = time.time()
            subprocess.run([sys.executable, *command], capture_output=True, check=True)
            found.append(time.time() - began)
    seconds = {"first step": first_step, "import torch": torch_alone, "--help": help_text}
    print(json.dumps({"runs": RUNS} | {name: summary(found) for name, found in seconds.items()}))


def summary(seconds: list[float]) -> dict[str, float]:
    """Median, lowest and highest, without the first run."""
    counted = seconds[1:]
    figures = {"median": statistics.median(counted), "lowest": min(counted), "highest": max(counted)}
    return {name: round(value, 3) for name, value in figures.items()}


if __name__ == "__main__":
    main()
