"""A trained model for use: read from its file, then pixels in and probabilities out. Needs no Accelerate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mnist_accel import archive, runlog, weights
from mnist_accel.errors import WeightsError
from mnist_accel.pipeline import normalise

BATCH_SIZE = 256
"""Images of one forward pass; larger ones gain nothing on a CPU. The largest activation then takes 22 MB."""


@dataclass(frozen=True)
class Classifier:
    """A model and what its file says of it.

    Attributes:
        model: images (B, 1, 28, 28), normalised → logits (B, classes); in evaluation mode, on `device`, channels last.
        trained_on: the data set's name, or None where nothing says so.
    """

    path: Path
    model: nn.Module
    class_names: tuple[str, ...]
    trained_on: str | None
    device: torch.device

    @torch.inference_mode()
    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The probability of each class for uint8 images (N, 28, 28), white on black; float32 (N, classes).

        Raises:
            ValueError: the images are of another type or shape.
            WeightsError: the weights give what is not a number.
        """
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
            raise ValueError(f"images are {images.dtype} {images.shape}, not uint8 (N, 28, 28)")
        found = np.empty((len(images), len(self.class_names)), dtype=np.float32)
        for start in range(0, len(images), BATCH_SIZE):
            here = slice(start, start + BATCH_SIZE)
            batch = torch.tensor(images[here], device=self.device).unsqueeze(1)  # uint8 (B, 1, 28, 28)
            logits = self.model(normalise(batch, torch.float32))
            found[here] = logits.softmax(dim=1).cpu().numpy()
        if not np.isfinite(found).all():
            raise WeightsError(f"{self.path}: these weights give no probabilities", "train them again")
        return found


def load(path: Path, device: torch.device | None = None) -> Classifier:
    """The classifier in a weights file, proven by the JSON beside it where there is one.

    Args:
        path: a .pth file.
        device: where it computes; by default the machine's accelerator, else the CPU.

    Raises:
        WeightsError: the file or its record is missing, damaged, hostile, or of another architecture.
    """
    content = read(path)
    record = runlog.read_record(path)
    if record and record["weights_sha256"] != weights.sha256(content):
        raise WeightsError(
            f"{path} is not the file that {runlog.record_path(path)} describes (SHA-256 differs): "
            "damaged, or exchanged",
            "copy both again; or delete the JSON, and name --dataset, to evaluate the weights without it",
        )
    _, model = weights.into_model(weights.load(content, path), record["model"] if record else None, path)
    model.eval()
    with torch.inference_mode():
        classes = model(torch.zeros(1, 1, 28, 28)).shape[1]
    names = record["dataset"].get("class_names") if record else [str(number) for number in range(classes)]
    if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
        raise WeightsError(
            f"{runlog.record_path(path)}: its class names are not those of {classes} classes", "copy both files again"
        )
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    trained_on = record["dataset"]["name"] if record else None
    model = model.to(memory_format=torch.channels_last)  # in which convolutions on a CPU take half the time
    return Classifier(path, model.to(device), tuple(names), trained_on, device)


def read(path: Path) -> bytes:
    """The content of a file that may be a model.

    Raises:
        WeightsError: there is none, or it is too large.
    """
    try:
        if path.stat().st_size > archive.LARGEST_FILE:
            raise WeightsError(f"{path}: too large for any model here", "name a .pth file with a state dict")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}", "name another file") from error
