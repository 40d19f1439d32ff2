"""One export of a trained model for other programs, compared with the original before the file appears: `export`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mnist_accel.data import datasets as data
from mnist_accel.errors import UserError
from mnist_accel.export import formats
from mnist_accel.export.formats import FORMATS
from mnist_accel.files import atomic as files
from mnist_accel.files import exported, weights
from mnist_accel.files.exported import Facts
from mnist_accel.models import classifier
from mnist_accel.models.normalisation import normalise
from mnist_accel.training.events import Silence

TOLERANCE = 1e-4
"""Largest difference of a probability: rounding in float32 gives some 1e-6, a wrong graph far more."""
Probabilities = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class ExportResult:
    """What an export left; the fields are the keys of `--json`.

    Attributes:
        opset: of ONNX's operators; None for other formats.
        samples: digits on which the file was compared with the original.
        largest_difference: of any probability of any of them.
        other_predictions: digits for which the most probable class is another.
    """

    format: str
    output: str
    bytes: int
    sha256: str
    model: str
    classes: int
    takes: str
    opset: int | None
    samples: int
    largest_difference: float
    other_predictions: int


class WholeModel(nn.Module):
    """A model with its normalisation and softmax: images uint8 (N, 28, 28) → probabilities (N, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(normalise(images.unsqueeze(1), torch.float32))
        return logits.softmax(dim=1)


def export(source: Path, format_name: str, output: Path) -> ExportResult:
    """Write the model in `source` in another format, when the file that results gives the same probabilities.

    Args:
        source: a weights file.
        format_name: one of `formats.FORMATS`.
        output: the file to write, of the format's suffix; see `formats.target`.

    Raises:
        UserError: the weights cannot be read, the file cannot be written, or it differs.
    """
    kind = FORMATS[format_name]
    original = classifier.load(source, torch.device("cpu"))
    if original.architecture is None:
        raise UserError(f"{source}: holds no weights, but a finished graph", "export the .pth file that it was made of")
    files.require_writable(output.parent)
    facts = Facts(original.architecture, original.class_names, original.trained_on)
    metadata = exported.as_metadata(facts, kind, original.sha256)
    digits = data.load("mnist-5k", Path(), Silence().notice, Silence().download).test.images
    expected = original.probabilities(digits)
    content = WRITERS[format_name](original.model.to(memory_format=torch.contiguous_format), metadata)
    found = reopened(content, format_name)(digits)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:
        raise UserError(
            f"{format_name}: its probabilities differ from those of {source} by up to {difference:.2g} on "
            f"{len(digits):,} digits, more than {TOLERANCE:g}; nothing was written",
            "export in another format, and report this",
        )
    files.write_whole(output, content)
    return ExportResult(
        format=format_name,
        output=str(output),
        bytes=len(content),
        sha256=weights.sha256(content),
        model=original.architecture,
        classes=len(original.class_names),
        takes=kind.takes,
        opset=formats.OPSET if format_name == "onnx" else None,
        samples=len(digits),
        largest_difference=difference,
        other_predictions=int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    )


def _write_onnx(model: nn.Module, metadata: dict[str, str]) -> bytes:
    program = torch.onnx.export(
        WholeModel(model),
        (_example(),),
        dynamo=True,
        opset_version=formats.OPSET,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        part.ClearField("metadata_props")  # torch's notes: lines of code and folders of this machine
    metadata = metadata | {"tensors_sha256": exported.digest(exported.onnx_bytes(proto))}
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    content: bytes = proto.SerializeToString()
    return content


def _write_safetensors(model: nn.Module, metadata: dict[str, str]) -> bytes:
    import safetensors.torch

    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    metadata = metadata | {"tensors_sha256": exported.digest(exported.state_bytes(state))}
    content: bytes = safetensors.torch.save(state, metadata)
    return content


def _write_pt2(model: nn.Module, metadata: dict[str, str]) -> bytes:
    program = torch.export.export(
        WholeModel(model), (_example(),), dynamic_shapes={"images": {0: torch.export.Dim("N")}}, strict=False
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of code and folders of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={exported.MEMBER: json.dumps(metadata)})
    return buffer.getvalue()


WRITERS: dict[str, Callable[[nn.Module, dict[str, str]], bytes]] = {
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
    "torch-export": _write_pt2,
}


def _example() -> Tensor:
    """Images uint8 (2, 28, 28): one alone would be taken for a fixed size."""
    return torch.zeros(2, 28, 28, dtype=torch.uint8)


def reopened(content: bytes, format_name: str) -> Probabilities:
    """What another program computes with a file that was just written here: uint8 (N, 28, 28) → (N, classes)."""
    if format_name == "torch-export":  # this very program's bytes may be loaded, a stranger's may not
        program = torch.export.load(io.BytesIO(content)).module()
        return lambda images: program(torch.tensor(images)).detach().numpy()
    path = Path("new").with_suffix(FORMATS[format_name].suffix)
    return classifier.from_content(content, path, torch.device("cpu")).probabilities
