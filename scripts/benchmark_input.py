"""Measure images per second of the input pipeline on one core: gather by random index, then normalise.

python scripts/benchmark_input.py
"""

import argparse
import json
import statistics
import time

import numpy as np
import torch

from mnist_accel.data.batches import InputPipeline, epoch_order
from mnist_accel.data.digits import Digits

SAMPLES, BATCH_SIZE, REPEATS = 60_000, 128, 7


def main() -> None:
    """Measure whole epochs; print the median and the range as JSON."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (SAMPLES, 28, 28), dtype=np.uint8)
    pipeline = InputPipeline(Digits(images, np.zeros(SAMPLES, dtype=np.int64)), torch.device("cpu"), torch.float32)
    speeds = []
    for epoch in range(REPEATS + 1):
        began = time.perf_counter()
        order = torch.from_numpy(epoch_order(SAMPLES, 0, epoch))
        for start in range(0, SAMPLES, BATCH_SIZE):
            pipeline.batch(order[start : start + BATCH_SIZE])
        speeds.append(SAMPLES / (time.perf_counter() - began))
    counted = speeds[1:]  # the first epoch warms up
    figures = {"median": statistics.median(counted), "lowest": min(counted), "highest": max(counted)}
    print(json.dumps({"images_per_second": {k: round(v) for k, v in figures.items()}, "epochs": REPEATS, "cores": 1}))


if __name__ == "__main__":
    main()
