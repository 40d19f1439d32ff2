"""Measure how long a folder of MNIST's 70,000 images as PNG files takes to read: the first time, and from the cache.

Times are in seconds. `taskset -c 0 python scripts/benchmark_folder.py` uses one process.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from PIL import Image

from mnist_accel.data import datasets
from mnist_accel.data.digits import DataSet
from mnist_accel.hardware.cores import available_cores


def write_pictures(data: DataSet, folder: Path) -> None:
    """One PNG file for each image of the data set, in FOLDER/train/CLASS and FOLDER/test/CLASS."""
    for part, digits in (("train", data.train), ("test", data.test)):
        for class_name in data.class_names:
            (folder / part / class_name).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(digits.images, digits.labels, strict=True)):
            Image.fromarray(image).save(folder / part / data.class_names[label] / f"{index:05}.png")


def seconds(folder: Path) -> float:
    """The time that the data set in the folder takes to read."""
    began = time.perf_counter()
    datasets.load(f"folder:{folder}", Path(), print)
    return round(time.perf_counter() - began, 2)


def main() -> None:
    """Write the pictures to a temporary folder, read them, and print the times as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        os.environ["XDG_CACHE_HOME"] = temporary
        write_pictures(datasets.load("mnist", Path(), print), folder)
        print(json.dumps({"cores": available_cores(), "first": seconds(folder), "second": seconds(folder)}))


if __name__ == "__main__":
    main()
