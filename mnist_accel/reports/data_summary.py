"""The facts of a data set, and its summary as a picture."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from mnist_accel.data.digits import DataSet, Digits, first_equal
from mnist_accel.reports.plots import on_any_background, png

SAMPLES = 12  # images of each class in the picture


@dataclass(frozen=True)
class DataSummary:
    """The facts of a data set; images are equal where all their pixels are."""

    dataset: str
    source: str
    train_samples: int
    test_samples: int
    classes: list[dict[str, Any]]  # name ("class"), "train" and "test" samples of each class
    mean: float  # of all training pixels, from 0 (black) to 1
    std: float  # likewise
    train_duplicates: int  # training images that are equal to an earlier training image
    test_duplicates: int  # test images that are equal to an earlier test image
    in_both: list[int]  # indices of the test images that are also training images
    contradictions: int  # images that have another label where they occur first


def summarise(data: DataSet) -> DataSummary:
    """Count classes and duplicates of a data set."""
    first, labels = first_equal(data.train, data.test), np.concatenate([data.train.labels, data.test.labels])
    in_train, in_test = np.split(first, [len(data.train)])
    counts = [np.bincount(part.labels, minlength=len(data.class_names)).tolist() for part in (data.train, data.test)]
    shares = np.bincount(data.train.images.ravel(), minlength=256) / data.train.images.size
    values = np.arange(256) / 255
    mean = float(shares @ values)
    return DataSummary(
        dataset=data.name,
        source=data.source,
        train_samples=len(data.train),
        test_samples=len(data.test),
        classes=[{"class": name, "train": a, "test": b} for name, a, b in zip(data.class_names, *counts, strict=True)],
        mean=mean,
        std=float(shares @ (values - mean) ** 2) ** 0.5,
        train_duplicates=len(in_train) - len(np.unique(in_train)),
        test_duplicates=len(in_test) - len(np.unique(in_test)),
        in_both=np.flatnonzero(in_test < len(in_train)).tolist(),
        contradictions=int((labels != labels[first]).sum()),
    )


@on_any_background
def draw(data: DataSet, found: DataSummary) -> bytes:
    """For each class: counts, mean image, random training images."""
    rows = [_row(data.train, label) for label in range(len(found.classes))]
    figure = Figure(figsize=(9.5, 1.2 + 0.42 * len(rows)), layout="constrained")
    bars, images = figure.subplots(1, 2, width_ratios=[1, 1.8])
    for place, part, colour in ((-0.2, "train", "tab:blue"), (0.2, "test", "tab:red")):
        bars.barh(np.arange(len(rows)) + place, [row[part] for row in found.classes], 0.4, color=colour, label=part)
    bars.set_yticks(range(len(rows)), [row["class"] for row in found.classes])
    bars.set(ylim=(len(rows) - 0.5, -0.5), xlabel="samples")
    bars.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)
    images.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=255, aspect="auto")
    images.axvline(27.5, color="tab:orange", linewidth=2)
    images.set_title("mean | random training images", loc="left", fontsize=10)
    images.axis("off")
    samples = f"{found.train_samples:,} training, {found.test_samples:,} test images"
    both = f"\ntest images that are also training images: {len(found.in_both):,}" if found.in_both else ""
    figure.suptitle(f"{found.dataset}: {samples}, {len(found.classes)} classes{both}")
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
