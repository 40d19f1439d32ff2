"""The facts of a data set, and its summary as a picture."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.reports.plots import new_figure, on_any_background, png

SAMPLES = 12
"""Images of each class in the picture."""
LARGEST_ROWS = 64
"""Classes in the picture."""


@dataclass(frozen=True)
class DataSummary:
    """The facts of a data set; images are equal where all their pixels are.

    Attributes:
        classes: name ("class"), "train" and "test" samples of each class.
        mean: of all training pixels, from 0 (black) to 1, as is their standard deviation.
        train_duplicates: training images that are equal to an earlier training image.
        test_duplicates: likewise of the test images.
        in_both: indices of the test images that are also training images.
        contradictions: images that have another label where they occur first.
    """

    dataset: str
    source: str
    train_samples: int
    test_samples: int
    classes: list[dict[str, Any]]
    mean: float
    std: float
    train_duplicates: int
    test_duplicates: int
    in_both: list[int]
    contradictions: int


def summarise(data: DataSet) -> DataSummary:
    """Count classes and duplicates of a data set."""
    train, test = (
        [hashlib.blake2b(image, digest_size=16).digest() for image in part.images] for part in (data.train, data.test)
    )
    first_labels: dict[bytes, int] = {}
    labels = np.concatenate([data.train.labels, data.test.labels]).tolist()
    contradictions = sum(
        first_labels.setdefault(digest, label) != label for digest, label in zip(train + test, labels, strict=True)
    )
    counts = [np.bincount(part.labels, minlength=len(data.class_names)).tolist() for part in (data.train, data.test)]
    shares = np.bincount(data.train.images.ravel(), minlength=256) / data.train.images.size
    values, known = np.arange(256) / 255, set(train)
    mean = float(shares @ values)
    return DataSummary(
        dataset=data.name,
        source=data.source,
        train_samples=len(train),
        test_samples=len(test),
        classes=[
            {"class": name, "train": in_train, "test": in_test}
            for name, in_train, in_test in zip(data.class_names, *counts, strict=True)
        ],
        mean=mean,
        std=float(shares @ (values - mean) ** 2) ** 0.5,
        train_duplicates=len(train) - len(known),
        test_duplicates=len(test) - len(set(test)),
        in_both=[index for index, digest in enumerate(test) if digest in known],
        contradictions=contradictions,
    )


@on_any_background
def draw(data: DataSet, found: DataSummary) -> bytes:
    """For each class: counts, mean image, random training images."""
    shown = found.classes[:LARGEST_ROWS]
    rows = [_row(data.train, label) for label in range(len(shown))]
    figure = new_figure(9.5, 1.2 + 0.42 * len(rows))
    bars, images = figure.subplots(1, 2, width_ratios=[1, 1.8])
    for place, part, colour in ((-0.2, "train", "tab:blue"), (0.2, "test", "tab:red")):
        bars.barh(np.arange(len(rows)) + place, [row[part] for row in shown], 0.4, color=colour, label=part)
    bars.set_yticks(range(len(rows)), [row["class"] for row in shown])
    bars.set(ylim=(len(rows) - 0.5, -0.5), xlabel="samples")
    bars.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    images.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=255, aspect="auto")
    images.axvline(27.5, color="tab:orange", linewidth=2)
    images.set_title("mean | random training images", loc="left", fontsize=10)
    images.axis("off")
    more = f", the first {len(shown)} of them shown" if len(shown) < len(found.classes) else ""
    samples = f"{found.train_samples:,} training, {found.test_samples:,} test images"
    both = f"\n{len(found.in_both):,} test images are also training images" if found.in_both else ""
    figure.suptitle(f"{found.dataset}: {samples}, {len(found.classes)} classes{more}{both}")
    return png(figure)


def _row(train: Digits, label: int) -> npt.NDArray[np.uint8]:
    """The mean image of a class, and some of its images beside it; (28, 28 × (1 + SAMPLES)), black without images."""
    row = np.zeros((28, 28 * (1 + SAMPLES)), np.uint8)
    here = train.images[train.labels == label]
    if len(here):
        chosen = np.random.default_rng(label).permutation(len(here))[:SAMPLES]
        images = np.concatenate([here.mean(axis=0).round().astype(np.uint8), *here[chosen]], axis=1)
        row[:, : images.shape[1]] = images
    return row
