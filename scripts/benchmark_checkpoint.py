"""Measure how long a checkpoint stalls training: the default model, one checkpoint after every 20 steps.

python scripts/benchmark_checkpoint.py
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS_BETWEEN = 20


def main() -> None:
    """Print the median and the range as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    # These import torch, which --help need not wait for.
    from mnist_accel import TrainConfig, train
    from mnist_accel.hardware.cores import cpu_name

    stalls = time_saves()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        config = TrainConfig(
            dataset="mnist",
            train_samples=4000,
            epochs=options.epochs,
            checkpoint_every=STEPS_BETWEEN,
            output_dir=Path(folder),
        )
        result = train(config)
    step = result.train_seconds / result.steps - sum(stalls) / result.steps
    figures = {"median": statistics.median(stalls), "lowest": min(stalls), "highest": max(stalls)}
    summary = {
        "checkpoints": len(stalls),
        "stall_milliseconds": {name: round(1000 * value, 1) for name, value in figures.items()},
        "step_milliseconds": round(1000 * step, 1),
        "share_of_an_mnist_epoch_of_469_steps": round(figures["median"] / (469 * step), 5),
        "device": result.device,
        "cpu": cpu_name(),
        "mixed_precision": result.mixed_precision,
    }
    print(json.dumps(summary))


def time_saves() -> list[float]:
    """Time each save of a checkpoint from now on; the seconds are appended to the returned list."""
    from mnist_accel.training.guard import Guard

    stalls: list[float] = []
    original = Guard.save

    def timed(*arguments: Any) -> None:
        began = time.perf_counter()
        original(*arguments)
        stalls.append(time.perf_counter() - began)

    Guard.save = timed  # type: ignore[method-assign, assignment]
    return stalls


if __name__ == "__main__":
    main()
