"""How long a checkpoint stalls training: the default model, one after every 20 steps of real training.

python scripts/benchmark_checkpoint.py
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

from mnist_accel import TrainConfig, train
from mnist_accel.hardware.cpu import cpu_name
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import Progress, Training

STEPS_BETWEEN = 20


def main() -> None:
    """Print the median and the spread as JSON."""
    stalls: list[float] = []
    original = Guard.save

    def timed(self: Guard, training: Training, progress: Progress) -> None:
        began = time.perf_counter()
        original(self, training, progress)
        stalls.append(time.perf_counter() - began)

    Guard.save = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        result = train(
            TrainConfig(dataset="mnist-5k", epochs=20, checkpoint_every=STEPS_BETWEEN, output_dir=Path(folder))
        )
    step = result.train_seconds / result.steps - sum(stalls) / result.steps
    figures = {"median": statistics.median(stalls), "lowest": min(stalls), "highest": max(stalls)}
    print(
        json.dumps(
            {
                "checkpoints": len(stalls),
                "stall_milliseconds": {name: round(1000 * value, 1) for name, value in figures.items()},
                "step_milliseconds": round(1000 * step, 1),
                "share_of_an_mnist_epoch_of_469_steps": round(figures["median"] / (469 * step), 5),
                "device": result.device,
                "cpu": cpu_name(),
                "mixed_precision": result.mixed_precision,
            }
        )
    )


if __name__ == "__main__":
    main()
