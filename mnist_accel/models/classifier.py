"""A trained model from any weights file, ready for use: from pixels to probabilities. Needs no Accelerate."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mnist_accel.errors import NO_WEIGHTS, WeightsError, printable
from mnist_accel.files import atomic, exported, run_record, weights
from mnist_accel.files.untrusted import read_limited, refusing
from mnist_accel.models import architectures
from mnist_accel.models.architectures import normalise

BATCH_SIZE = 256  # images in a forward pass. Larger ones are not faster on a CPU; the largest activation takes 22 MB.


@dataclass(frozen=True)
class Classifier:
    """A trained model with the facts in its file."""

    path: Path
    model: nn.Module  # images (B, 1, 28, 28) of type `dtype` → logits (B, classes); in evaluation mode, on `device`
    architecture: str | None  # its name in `MODELS`, or of a network of the user's own; None for an ONNX graph
    class_names: tuple[str, ...]
    trained_on: str | None  # the name of the data set, or None if it is not recorded
    device: torch.device
    sha256: str  # of the file
    facts: Mapping[str, Any]  # the metadata of an exported file, or the JSON beside a .pth file

    @property
    def dtype(self) -> torch.dtype:
        """float32 for a model that takes normalised images; uint8 for an ONNX graph, which normalises them itself."""
        return torch.float32 if self.architecture else torch.uint8

    @torch.inference_mode()
    def probabilities(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Class probabilities float32 (N, classes) of images uint8 (N, 28, 28), white on black, or a WeightsError."""
        found = np.empty((len(images), len(self.class_names)), dtype=np.float32)
        for start in range(0, len(images), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            batch = torch.tensor(images[part], device=self.device).unsqueeze(1)  # uint8 (B, 1, 28, 28)
            logits = self.model(normalise(batch, self.dtype) if self.architecture else batch)
            found[part] = logits.softmax(dim=1).cpu().numpy()
        if not np.isfinite(found).all():
            raise WeightsError(f"{self.path}: these weights give no probabilities", "train them again")
        return found


class OnnxModel(nn.Module):
    """An ONNX file, computed on the CPU: images uint8 (B, 1, 28, 28) → log-probabilities float32 (B, classes)."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised
        self.refusing = functools.partial(refusing, WeightsError, f"{path}: not a usable model", "export it again")
        with self.refusing():
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.squeeze(1).cpu().numpy()
        with self.refusing():
            (probabilities,) = self.session.run(["probabilities"], {"images": pixels})
            if probabilities.ndim != 2 or len(probabilities) != len(pixels):
                raise ValueError(f"{probabilities.shape} results for {len(pixels)} images")
        found = torch.from_numpy(probabilities).to(images.device, torch.float32)
        return found.clamp_min(torch.finfo(torch.float32).tiny).log()  # finite for a probability of 0


def load(path: Path, device: torch.device | None = None, model: str | None = None) -> Classifier:
    """The model in a .pth, .safetensors or .onnx file. Raises UserError if it cannot be used.

    The JSON beside a .pth file, if any, must belong to it. `device` is by default the machine's accelerator, else the
    CPU. `model` is the network of the user's own that the weights belong to, "FILE.py:CLASS"; its code runs.
    """
    if not atomic.exists(path):
        raise WeightsError(f"{path}: {NO_WEIGHTS}")
    with refusing(WeightsError, f"cannot read {path}", "give another file"):
        content = read_limited(path, weights.LARGEST_FILE)
    return from_content(content, path, device, model)


def from_content(content: bytes, path: Path, device: torch.device | None = None, name: str | None = None) -> Classifier:
    """The model in the bytes of the file `path`, whose suffix tells the format; see `load`."""
    state, names, trained_on, facts = _read(content, path)
    architecture: str | None = None
    if state is None:
        model: nn.Module = OnnxModel(content, path)
    else:
        recorded = facts.get("model")
        if recorded and ":" in recorded and not name:
            raise WeightsError(f"{path}: weights of a network of your own", f"give --model {printable(recorded, 100)}")
        architecture, model = architectures.from_state(state, name or recorded, path, len(names))
        model = model.to(memory_format=torch.channels_last)  # convolutions on a CPU take half the time in it
    model.eval()
    with torch.inference_mode():
        classes = model(torch.zeros(1, 1, 28, 28, dtype=torch.float32 if architecture else torch.uint8)).shape[1]
    names = names or tuple(map(str, range(classes)))
    if len(names) != classes:
        raise WeightsError(f"{path}: {classes} classes, but {len(names)} class names", "copy or export it again")
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return Classifier(path, model.to(device), architecture, names, trained_on, device, weights.sha256(content), facts)


def _read(content: bytes, path: Path) -> tuple[dict[str, Tensor] | None, tuple[str, ...], str | None, dict[str, Any]]:
    """State dict (None for an ONNX graph), class names, data set and all recorded facts; empty without a record."""
    if path.suffix == ".pt2":
        raise WeightsError(f"{path}: .pt2 files are for other programs", "name the .pth file that it was exported from")
    if path.suffix in (".onnx", ".safetensors"):
        read = exported.read_safetensors
        state, facts = (None, exported.read_onnx(content, path)) if path.suffix == ".onnx" else read(content, path)
        return state, exported.class_names_of(facts, path) if facts else (), facts.get("trained_on") or None, facts
    facts = run_record.read_record(path) or {}
    if facts and facts["weights_sha256"] != weights.sha256(content):
        hint = "copy both again; or delete the JSON, and name --dataset, to evaluate the weights without it"
        problem = f"{path} is not the file that {run_record.record_path(path)} describes (SHA-256 differs)"
        raise WeightsError(problem, hint)
    dataset = facts.get("dataset", {})
    return weights.load(content, path), tuple(dataset.get("class_names", ())), dataset.get("name"), facts
