"""Export of a trained model in the format of another program. Each file is checked before it appears."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mnist_accel import __version__
from mnist_accel.data import datasets
from mnist_accel.errors import UserError
from mnist_accel.export.formats import FORMATS, OPSET
from mnist_accel.files import atomic, exported, weights
from mnist_accel.models import classifier
from mnist_accel.models.classifier import Classifier
from mnist_accel.models.normalisation import MEAN, STD, normalise
from mnist_accel.training.events import Observer

SAMPLES = 1000
"""Test digits of MNIST on which an exported file is compared with the original."""
TOLERANCE = 1e-4
"""Largest difference of a probability. Rounding in float32 makes about 1e-6, a wrong graph far more."""

EXAMPLE = torch.zeros(2, 28, 28, dtype=torch.uint8)
"""Images. torch.export would take a batch of one for a fixed size."""
DYNAMIC_SHAPES = {"images": {0: torch.export.Dim("N")}}


@dataclass(frozen=True)
class ExportResult:
    """An exported file and its comparison with the original; the fields are the keys of `--json`.

    Attributes:
        opset: of the ONNX operators; None for other formats.
        samples: digits on which the probabilities were compared.
        largest_difference: between two probabilities of the same digit and class.
        other_predictions: digits with another most probable class.
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


def export(source: Path, format_name: str, output: Path, model: str | None = None) -> ExportResult:
    """Write the model in a .pth or .safetensors file in another format. Raises UserError if the probabilities differ.

    Args:
        format_name: one of `formats.FORMATS`.
        output: with the format's suffix; see `formats.target`.
        model: the network of the user's own that the weights belong to.
    """
    original = classifier.load(source, torch.device("cpu"), model)
    if original.architecture is None:
        raise UserError(f"{source}: an ONNX graph cannot be exported", "export the .pth file that it was made of")
    atomic.require_writable(output.parent)
    digits = datasets.load("mnist", Path(), Observer().notice).test.images[:SAMPLES]
    expected = original.probabilities(digits)
    contiguous = original.model.to(memory_format=torch.contiguous_format)
    content = WRITERS[format_name](contiguous, _metadata(original, FORMATS[format_name].takes))
    found = _probabilities(content, output, digits, model)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCE:  # also if it is NaN
        raise UserError(
            f"--format {format_name}: the exported model differs from {source} by {difference:.2g} in a probability, "
            f"more than {TOLERANCE:g}; nothing was written",
            "export in another format, and report this",
        )
    atomic.write_whole(output, content)
    return ExportResult(
        format=format_name,
        output=str(output),
        bytes=len(content),
        sha256=weights.sha256(content),
        model=original.architecture,
        classes=len(original.class_names),
        takes=FORMATS[format_name].takes,
        opset=OPSET if format_name == "onnx" else None,
        samples=len(digits),
        largest_difference=difference,
        other_predictions=int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    )


def _metadata(original: Classifier, takes: str) -> dict[str, str]:
    """The metadata of an exported file."""
    return {
        "mnist_accel_facts": exported.METADATA_VERSION,
        "mnist_accel": __version__,
        "model": original.architecture or "",
        "class_names": json.dumps(original.class_names, ensure_ascii=False),
        "trained_on": original.trained_on or "",
        "mean": repr(MEAN),
        "std": repr(STD),
        "takes": takes,
        "source_sha256": original.sha256,
    }


def _write_onnx(model: nn.Module, metadata: dict[str, str]) -> bytes:
    program = torch.onnx.export(
        WholeModel(model),
        (EXAMPLE,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=DYNAMIC_SHAPES,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        part.ClearField("metadata_props")  # torch's notes: lines of code and folders of this machine
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    content: bytes = proto.SerializeToString()
    return content


def _write_safetensors(model: nn.Module, metadata: dict[str, str]) -> bytes:
    import safetensors.torch

    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    content: bytes = safetensors.torch.save(state, metadata)
    return content


def _write_pt2(model: nn.Module, metadata: dict[str, str]) -> bytes:
    program = torch.export.export(WholeModel(model), (EXAMPLE,), dynamic_shapes=DYNAMIC_SHAPES, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of code and folders of this machine
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"facts.json": json.dumps(metadata)})
    return buffer.getvalue()


WRITERS = {"onnx": _write_onnx, "safetensors": _write_safetensors, "torch-export": _write_pt2}


def _probabilities(
    content: bytes, output: Path, images: npt.NDArray[np.uint8], model: str | None
) -> npt.NDArray[np.float32]:
    """The probabilities (N, classes) that the exported model `content` gives for `images` (N, 28, 28)."""
    if output.suffix == ".pt2":  # the bytes are from this process, so that loading them is safe
        program = torch.export.load(io.BytesIO(content)).module()
        found: npt.NDArray[np.float32] = program(torch.tensor(images)).detach().numpy()
        return found
    return classifier.from_content(content, output, torch.device("cpu"), model).probabilities(images)
