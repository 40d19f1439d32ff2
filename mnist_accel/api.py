"""The Python API: `train`, `evaluate` and `predict`. The commands of the same names call these functions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mnist_accel.models import classifier
from mnist_accel.pictures import picture_file
from mnist_accel.pictures.predict import PictureResult, read_files
from mnist_accel.training.evaluate import evaluate
from mnist_accel.training.train import train

__all__ = ["evaluate", "predict", "train"]


def predict(
    pictures: str | Path | Sequence[str | Path], weights: str | Path = "mnist_cnn_model.pth", top_k: int = 3
) -> list[PictureResult]:
    """Read the digits in picture files.

    Args:
        pictures: a file, a folder, a pattern such as "*.png", or several of them.
        weights: a .pth file or an exported model.
        top_k: number of labels for each digit.

    Returns:
        A result for each picture; a picture that cannot be read has an error.

    Raises:
        UserError: the weights cannot be used.
    """
    names = [pictures] if isinstance(pictures, str | Path) else pictures
    return list(read_files(picture_file.find([str(name) for name in names]), classifier.load(Path(weights)), top_k))
