"""Measures the pictures per second of `mnist-accel predict` on PNG files of one digit, without loading the model.

python scripts/benchmark_predict.py --weights mnist_cnn_model.pth

Digits of MNIST's test set: its own images (28×28), and dark on light with noise, not centred, in three sizes. Also the
time for one photo.
"""

import argparse
import io
import json
import math
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from mnist_accel.data import datasets as data
from mnist_accel.models import classifier
from mnist_accel.pictures import predict as prediction
from mnist_accel.pictures import processes

REPEATS = 5
PICTURES = {28: 20_000, 32: 2_000, 48: 2_000, 64: 2_000}
"""The number of pictures by their side in pixels. Several processes read them; these start in every repeat."""


def main() -> None:
    """Time all files several times; print the median and the range as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("mnist_cnn_model.pth"))
    options = parser.parse_args()
    model = classifier.load(options.weights)
    digits = data.load("mnist", Path("data"), print).test
    random = np.random.default_rng(0)
    speeds: dict[str, dict[str, dict[str, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side, pictures in PICTURES.items():
            paths = []
            for number in range(pictures):
                path = Path(folder) / f"{side}-{number}.png"
                path.write_bytes(as_png(digits.images[number % len(digits)], side, random))
                paths.append(str(path))
            speeds[f"{side}x{side}"] = speed(paths, model)
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(as_photo(digits.images[0], random))
        seconds = statistics.median(time_of([str(photo)], model) for _ in range(REPEATS))
    print(
        json.dumps(
            {
                "pictures_per_second": speeds,
                "photo_3000x2000_seconds": round(seconds, 3),
                "pictures": list(PICTURES.values()),
                "repeats": REPEATS,
                "device": str(model.device),
                "threads": torch.get_num_threads(),
                "cores": os.cpu_count(),
            }
        )
    )


def speed(paths: list[str], model: classifier.Classifier) -> dict[str, dict[str, int]]:
    """Pictures per second with one process and with several, in turn, after a warm-up."""
    time_of(paths[:256], model)
    least, speeds = processes.LEAST, dict[str, list[float]]()
    for _ in range(REPEATS):
        for way, processes.LEAST in (("one process", math.inf), ("several processes", least)):
            speeds.setdefault(way, []).append(len(paths) / time_of(paths, model))
    return {
        way: {"median": round(statistics.median(found)), "lowest": round(min(found)), "highest": round(max(found))}
        for way, found in speeds.items()
    }


def time_of(paths: list[str], model: classifier.Classifier) -> float:
    """Seconds to read all of them."""
    began = time.perf_counter()
    results = list(prediction.read_pictures(paths, model))
    seconds = time.perf_counter() - began
    assert all(result.error is None for result in results)
    return seconds


def as_png(image: npt.NDArray[np.uint8], side: int, random: np.random.Generator) -> bytes:
    """A PNG file: MNIST's own image if `side` is 28, else dark on light, not centred, with noise."""
    buffer = io.BytesIO()
    if side == image.shape[0]:
        Image.fromarray(image).save(buffer, "PNG")
        return buffer.getvalue()
    size = round(side * random.uniform(0.7, 0.9))
    small = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
    before = random.integers(0, side - size + 1, 2)
    placed = np.pad(small, [(int(edge), int(side - size - edge)) for edge in before])
    pixels = 225 - 0.7 * placed + random.normal(0, 3, placed.shape)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def as_photo(image: npt.NDArray[np.uint8], random: np.random.Generator) -> bytes:
    """A JPEG file: one digit on a large page, in colour."""
    large = Image.fromarray(image).resize((1200, 1200), Image.Resampling.BICUBIC)
    pixels = 225 - 0.7 * np.pad(np.asarray(large, dtype=np.float64), ((300, 500), (700, 1100)))
    pixels = pixels[..., None] * np.array([1.0, 0.97, 0.9]) + random.normal(0, 5, (2000, 3000, 1))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
