"""A trained model for use: read from its file, then pixels in and probabilities out. Needs no Accelerate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mnist_accel.errors import WeightsError
from mnist_accel.files import exported, weights
from mnist_accel.files import pth as archive
from mnist_accel.files import run_record as runlog
from mnist_accel.files.exported import Facts
from mnist_accel.models.normalisation import normalise

BATCH_SIZE = 256
"""Images of one forward pass; larger ones gain nothing on a CPU. The largest activation then takes 22 MB."""


@dataclass(frozen=True)
class Classifier:
    """A model and what its file says of it.

    Attributes:
        model: images (B, 1, 28, 28) of type `dtype` → logits (B, classes); in evaluation mode, on `device`.
        dtype: float32, normalised; or uint8 for a model that normalises by itself, always in float32.
        architecture: its name in `models.MODELS`; None for a finished graph (ONNX).
        trained_on: the data set's name, or None where nothing says so.
        sha256: of the file.
    """

    path: Path
    model: nn.Module
    dtype: torch.dtype
    architecture: str | None
    class_names: tuple[str, ...]
    trained_on: str | None
    device: torch.device
    sha256: str

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
            logits = self.model(batch if self.dtype == torch.uint8 else normalise(batch, self.dtype))
            found[here] = logits.softmax(dim=1).cpu().numpy()
        if not np.isfinite(found).all():
            raise WeightsError(f"{self.path}: these weights give no probabilities", "train them again")
        return found


def load(path: Path, device: torch.device | None = None) -> Classifier:
    """The classifier in a weights file, proven by the JSON beside it where there is one, or in an exported file.

    Args:
        path: a .pth, .safetensors, .onnx or .pt2 file.
        device: where it computes; by default the machine's accelerator, else the CPU.

    Raises:
        WeightsError: the file or its record is missing, damaged, hostile, or of another architecture.
        UserError: a package that this kind of file needs is missing.
    """
    return from_content(read(path), path, device)


def from_content(content: bytes, path: Path, device: torch.device | None = None) -> Classifier:
    """The classifier in the bytes of a file; see `load`.

    Args:
        path: where they came from: its suffix says what they are, and a .pth file's record is beside it.
    """
    model: nn.Module
    architecture: str | None = None
    dtype = torch.float32
    if path.suffix == ".onnx":
        model, facts = exported.read_onnx(content, path)
        dtype = torch.uint8
    else:
        state, facts = read_state(content, path)
        architecture, model = weights.into_model(state, facts.model, path)
        model = model.to(memory_format=torch.channels_last)  # in which convolutions on a CPU take half the time
    model.eval()
    with torch.inference_mode():
        classes = model(torch.zeros(1, 1, 28, 28, dtype=dtype)).shape[1]
    names = facts.class_names or tuple(str(number) for number in range(classes))
    if len(names) != classes:
        raise WeightsError(f"{path}: {classes} classes, but {len(names)} class names", "copy or export it again")
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return Classifier(
        path, model.to(device), dtype, architecture, names, facts.trained_on, device, weights.sha256(content)
    )


def read_state(content: bytes, path: Path) -> tuple[dict[str, Tensor], Facts]:
    """The tensors by name in a file of weights, and what is known of them.

    Raises:
        WeightsError: the file or its record is damaged or hostile.
    """
    if path.suffix == ".safetensors":
        state, metadata = exported.read_safetensors(content, path)
        return state, exported.from_metadata(metadata, path) if metadata else Facts()
    if path.suffix == ".pt2":
        state, metadata = exported.read_pt2(content, path)
        return state, exported.from_metadata(metadata, path)
    record = runlog.read_record(path)
    if record is None:
        return weights.load(content, path), Facts()
    require_recorded(content, record, path)
    dataset = record["dataset"]
    return weights.load(content, path), Facts(record["model"], tuple(dataset["class_names"]), dataset["name"])


def require_recorded(content: bytes, record: dict[str, Any], path: Path) -> None:
    """Raise WeightsError where the bytes of a file are not those that its record was written for."""
    if record["weights_sha256"] != weights.sha256(content):
        raise WeightsError(
            f"{path} is not the file that {runlog.record_path(path)} describes (SHA-256 differs): "
            "damaged, or exchanged",
            "copy both again; or delete the JSON, and name --dataset, to evaluate the weights without it",
        )


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
