"""Make a large IDX data set: distorted copies of MNIST's digits (small rotations, shifts and changes of scale).

python scripts/make_large.py --data-dir data --images 8100000 large
mnist-accel train --dataset idx:large --epochs 1
"""

import argparse
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from mnist_accel import TrainConfig
from mnist_accel.data import datasets as data
from mnist_accel.data.augmentation import Augmentation
from mnist_accel.data.idx import UNSIGNED_BYTE
from mnist_accel.data.named_sets import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS

BATCH = 2000


def main() -> None:
    """Write the four files. The test part is that of the original."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--images", type=int, default=8_100_000)
    options = parser.parse_args()
    dataset = data.load(options.dataset, options.data_dir, print)
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((TEST_IMAGES, dataset.test.images), (TEST_LABELS, dataset.test.labels)):
        (options.folder / name).write_bytes(header(array.shape) + array.astype(np.uint8).tobytes())

    source, labels = torch.tensor(dataset.train.images).unsqueeze(1), dataset.train.labels.astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "distortions.toml"  # a recipe is the only way to set distortions
        recipe.write_text("rotation = 10.0\nshift = 1.5\nscale = 0.1\n")
        config = TrainConfig(recipe=str(recipe))
    augment = Augmentation(config, len(labels), background=0.0)
    with (
        (options.folder / TRAIN_IMAGES).open("wb") as images_file,
        (options.folder / TRAIN_LABELS).open("wb") as labels_file,
    ):
        images_file.write(header((options.images, 28, 28)))
        labels_file.write(header((options.images,)))
        written = 0
        while written < options.images:
            copy, first = divmod(written, len(labels))
            here = torch.arange(first, min(first + BATCH, len(labels), first + options.images - written))
            distorted = augment(source[here].float(), here, copy)
            images_file.write(distorted.round().clamp(0, 255).to(torch.uint8).numpy().tobytes())
            labels_file.write(labels[here].tobytes())
            written += len(here)
            if copy != written // len(labels):
                print(f"{written:,} of {options.images:,} images", file=sys.stderr)


def header(shape: tuple[int, ...]) -> bytes:
    """The header of an IDX file of unsigned bytes."""
    return bytes([0, 0, UNSIGNED_BYTE, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


if __name__ == "__main__":
    main()
