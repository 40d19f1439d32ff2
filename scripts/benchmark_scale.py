"""Compare training from a large mapped file with training from memory; measure memory and the cost of an image.

The file is read once before, so that as much of it as possible is in the file cache of the operating system.

python scripts/make_large.py --data-dir data --images 10000000 large
python scripts/benchmark_scale.py large --picture scale.png
"""

import argparse
import dataclasses
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from mnist_accel import TrainConfig
from mnist_accel.data import idx_folder
from mnist_accel.data.batches import InputPipeline
from mnist_accel.data.digits import Digits
from mnist_accel.data.sample_order import epoch_order
from mnist_accel.files import atomic as files
from mnist_accel.training.loop import train_step
from mnist_accel.training.setup import Setup, prepare
from mnist_accel.training.train import start

SAMPLES, IN_MEMORY, BATCH = 8_100_000, 60_000, 128
STEPS, ROUNDS = 50, 10
SIZES = (10_000, 100_000, 1_000_000, 3_000_000, 10_000_000)
GATHERED = 200_000


def main() -> None:
    """Measure, print JSON, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--picture", type=Path, default=Path("scale.png"))
    options = parser.parse_args()
    dataset = idx_folder.load(f"idx:{options.folder}", options.folder)
    images, labels = dataset.train.images, dataset.train.labels
    if len(labels) < SAMPLES:
        sys.exit(f"{options.folder} holds {len(labels):,} images; {SAMPLES:,} are needed (scripts/make_large.py)")

    for path in options.folder.iterdir():
        with path.open("rb") as file:
            while file.read(2**24):
                pass
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(output_dir=Path(folder))
        hardware = start(config)
        parts = {
            "memory": Digits(np.array(images[:IN_MEMORY]), labels[:IN_MEMORY]),
            "mapped": Digits(images[:SAMPLES], labels[:SAMPLES]),
        }
        runs = {
            name: (prepare(config, hardware, dataclasses.replace(dataset, train=part)), shuffled(len(part)))
            for name, part in parts.items()
        }
        speeds: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(-1, ROUNDS):
            for name, (training, order) in runs.items():
                began = time.perf_counter()
                train(training, order, max(0, number) * STEPS % (len(order) // BATCH - STEPS))
                if number >= 0:  # the first round warms up
                    speeds[name].append(STEPS * BATCH / (time.perf_counter() - began))
    ratios = [mapped / memory for mapped, memory in zip(speeds["mapped"], speeds["memory"], strict=True)]
    costs = {size: cost(images[:size], labels[:size]) for size in SIZES if size <= len(labels)}
    figures = {
        "images": SAMPLES,
        "steps": STEPS * ROUNDS,
        "images_per_second": {name: round(statistics.median(found)) for name, found in speeds.items()},
        "ratio": {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios), "n": ROUNDS},
        "anonymous_memory_mb": anonymous_memory() / 2**20,
        "microseconds_per_image_by_size": costs,
        "training_microseconds_per_image": 1e6 / statistics.median(speeds["mapped"]),
    }
    print(json.dumps(figures))
    files.write_whole(options.picture, picture(costs))


def shuffled(samples: int) -> torch.Tensor:
    """The order of the first epoch."""
    return torch.from_numpy(epoch_order(samples, 0, 0))


def train(setup: Setup, order: torch.Tensor, first_step: int) -> None:
    """STEPS optimizer steps."""
    sums = torch.zeros(3, STEPS, dtype=torch.float64)
    for step in range(STEPS):
        start = (first_step + step) * BATCH
        train_step(setup, order[start : start + BATCH], 0, step, sums)


def cost(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> float:
    """Microseconds per image for the whole input: the order of the epoch, gather, normalise."""
    pipeline = InputPipeline(Digits(images, labels), torch.device("cpu"), torch.float32)
    found = []
    for epoch in range(4):
        began = time.perf_counter()
        order = torch.from_numpy(epoch_order(len(labels), 0, epoch))
        ordering = (time.perf_counter() - began) / len(labels)
        chosen = order[:GATHERED]
        began = time.perf_counter()
        for first in range(0, len(chosen), BATCH):
            pipeline.batch(chosen[first : first + BATCH])
        found.append(1e6 * (ordering + (time.perf_counter() - began) / len(chosen)))
    return statistics.median(found[1:])  # the first epoch warms up


def anonymous_memory() -> int:
    """Bytes of resident memory of this process that are not mapped from a file."""
    match = re.search(r"^Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def picture(costs: dict[int, float]) -> bytes:
    """A plot of the cost of an image against the size of the data set; PNG."""
    import io

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(list(costs), list(costs.values()), "o-")
    axes.set(xlabel="images in the data set", ylabel="µs per image: order, gather, normalise", ylim=(0, None))
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
