"""Export of a trained model in the format of another program. Each file is checked before it appears."""

import io
import json
import tomllib
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from mnist_accel import __version__
from mnist_accel.data import datasets
from mnist_accel.errors import UserError, printable
from mnist_accel.files import atomic, exported, weights
from mnist_accel.files.exported import FORMATS
from mnist_accel.models import classifier
from mnist_accel.models.architectures import MEAN, STD, normalise
from mnist_accel.models.classifier import Classifier
from mnist_accel.training.events import Observer

OPSET = 20  # the newest ONNX operators that torch writes without conversion; onnxruntime since 1.17 (2024) reads them
SAMPLES = 1000  # test digits of MNIST on which an exported file is compared with the original
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2}  # of probabilities; rounding makes about 1e-6 and 1e-3
EXAMPLE = torch.zeros(2, 28, 28, dtype=torch.uint8)  # images. torch.export would take a batch of one for a fixed size.
DYNAMIC_SHAPES = {"images": {0: torch.export.Dim("N")}}
MODEL_CARD = "MODEL_CARD.md"
FACTS = tomllib.loads(Path(__file__).with_name("facts.toml").read_text(encoding="utf-8"))


class WholeModel(nn.Module):
    """A model with normalisation and softmax, in float32: images uint8 (N, 28, 28) → probabilities (N, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        # Weights may be float16.
        state = {name: value.float() for name, value in self.model.state_dict().items() if value.is_floating_point()}
        pixels = normalise(images.unsqueeze(1), torch.float32)
        logits: Tensor = torch.func.functional_call(self.model, state, (pixels,), tie_weights=False)
        return logits.softmax(dim=1)


def export(source: Path, kind: str, output: Path, model: str | None = None, *, half: bool = False) -> dict[str, Any]:
    """Write the model in a .pth or .safetensors file in another format, and a model card beside it; facts for JSON.

    `output` has the suffix of the format `kind`. `half` writes float16 weights. `model` is a network of the user's own.
    Raises UserError, and writes nothing, if the probabilities on MNIST's digits differ.
    """
    original = classifier.load(source, torch.device("cpu"), model)
    if original.architecture is None:
        raise UserError(f"{source}: an ONNX graph cannot be exported", "export the .pth file that it was made of")
    atomic.require_writable(output.parent, "--output")
    digits = datasets.load("mnist", Path(), Observer().notice).test.images[:SAMPLES]
    expected = original.probabilities(digits)
    dtype = torch.float16 if half else torch.float32
    metadata = _metadata(original, FORMATS[kind].takes, dtype)
    content = WRITERS[kind](original.model.to(dtype).to(memory_format=torch.contiguous_format), metadata)
    if kind == "torch-export":  # the bytes are from this process, so that loading them is safe
        found = torch.export.load(io.BytesIO(content)).module()(torch.tensor(digits)).detach().numpy()
    else:
        found = classifier.from_content(content, output, torch.device("cpu"), model).probabilities(digits)
    difference = float(np.abs(found - expected).max())
    if not difference <= TOLERANCES[dtype]:  # also if it is NaN
        limit = f"more than {TOLERANCES[dtype]:g}; nothing was written"
        problem = f"--format {kind}: a probability differs from that of {source} by {difference:.2g}, {limit}"
        raise UserError(problem, "export in another format, and report this")
    result = {
        "format": kind,
        "output": str(output),
        "model_card": str(output.with_name(MODEL_CARD)),
        "bytes": len(content),
        "sha256": weights.sha256(content),
        "model": original.architecture,
        "classes": len(original.class_names),
        "weights": metadata["weights"],
        "takes": FORMATS[kind].takes,
        "opset": OPSET if kind == "onnx" else None,
        "samples": len(digits),
        "largest_difference": difference,  # of a probability
        "other_predictions": int((found.argmax(axis=1) != expected.argmax(axis=1)).sum()),
    }
    atomic.publish({output: content, output.with_name(MODEL_CARD): _card(metadata, result).encode()})
    return result


def _metadata(original: Classifier, takes: str, dtype: torch.dtype) -> dict[str, str]:
    """The metadata of an exported file. The facts about the training come from the JSON beside a .pth file."""
    facts = {"test_accuracy": original.facts.get("metrics", {}).get("test_accuracy"), **original.facts}
    data = original.trained_on or "not recorded"
    return {
        "mnist_accel_facts": exported.METADATA_VERSION,
        "mnist_accel": __version__,
        "model": original.architecture or "",
        "layers": str(original.model),
        "class_names": json.dumps(original.class_names, ensure_ascii=False),
        "trained_on": original.trained_on or "",
        "recipe": printable(facts.get("recipe") or "not recorded"),
        "test_accuracy": printable(facts["test_accuracy"] or "not recorded"),
        "licence": f"program mnist-accel: MIT; training data {data}: {FACTS['licences'].get(data, 'not known here')}",
        "input": FACTS["input"],
        "weights": str(dtype).removeprefix("torch."),
        "mean": repr(MEAN),
        "std": repr(STD),
        "takes": takes,
        "source_sha256": original.sha256,
    }


def _card(metadata: dict[str, str], result: dict[str, Any] | None = None) -> str:
    """The model card. Without the `result` of an export it is the documentation inside an ONNX file."""
    template = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)  # Markdown: nothing to escape
    return environment.from_string(template).render(metadata, formats=FORMATS, result=result)


def _traced(model: nn.Module) -> torch.export.ExportedProgram:
    program = torch.export.export(WholeModel(model), (EXAMPLE,), dynamic_shapes=DYNAMIC_SHAPES, strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of code and folders of this machine
    return program


def _write_onnx(model: nn.Module, metadata: dict[str, str]) -> bytes:
    program = torch.onnx.export(
        _traced(model),
        dynamic_shapes=DYNAMIC_SHAPES,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["probabilities"],
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        part.ClearField("metadata_props")  # torch's notes, which are of no use here
    for name, value in metadata.items():
        proto.metadata_props.add(key=name, value=value)
    proto.doc_string = _card(metadata)
    return bytes(proto.SerializeToString())


def _write_safetensors(model: nn.Module, metadata: dict[str, str]) -> bytes:
    # Clones, because safetensors refuses tensors that share memory.
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(state, metadata)


def _write_pt2(model: nn.Module, metadata: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_traced(model), buffer, extra_files={"facts.json": json.dumps(metadata)})
    return buffer.getvalue()


WRITERS = {"onnx": _write_onnx, "safetensors": _write_safetensors, "torch-export": _write_pt2}
