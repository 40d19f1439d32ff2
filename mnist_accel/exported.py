"""Exported models, read as a stranger's input: no code in them runs, and they cannot fill the memory."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_accel import archive, formats
from mnist_accel.archive import ArchiveError, first_line
from mnist_accel.errors import WeightsError
from mnist_accel.formats import FORMATS, Facts
from mnist_accel.pipeline import MEAN, STD

if TYPE_CHECKING:
    import onnx
    import onnxruntime

ONNX_IMAGES, MOST_ONNX_NUMBERS = 256, 2**28
"""For so many images all operators together may give so many numbers (1 GB); those of the model `cnn` give 2**25."""
MOST_ONNX_NODES = 1000
PT2_TYPES = {5: np.int64, 7: np.float32}
"""Element types by their number in torch's export schema (ScalarType in torch/_export/serde/schema.py)."""


def read_safetensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], Facts]:
    """The tensors and facts in a .safetensors file; no facts where another program wrote it.

    Raises:
        WeightsError: it is damaged.
    """
    formats.require(FORMATS["safetensors"].reading, str(path))
    import safetensors.torch

    try:
        state = safetensors.torch.load(content)  # checks the header's sizes against the content
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except Exception as error:  # safetensors raises its own, and json its own
        raise WeightsError(f"{path}: not a whole .safetensors file ({first_line(error)})", "export it again") from error
    if "mnist_accel_facts" not in metadata:
        return state, Facts()
    return state, formats.from_metadata(metadata, path, MEAN, STD)


def read_pt2(content: bytes, path: Path) -> tuple[dict[str, Tensor], Facts]:
    """The weights and facts in a .pt2 file of `torch.export`. The program in it is neither loaded nor run.

    torch.export.load (torch 2.15) can run foreign code: it unpickles what the file marks as pickled, and hands
    expressions to SymPy, which evaluates them as Python. The weights themselves lie there as plain numbers.

    Raises:
        WeightsError: it is damaged, hostile, or of another program.
    """
    try:
        with archive.open_plain(content) as entries:
            root = entries.namelist()[0].split("/")[0]
            metadata = json.loads(entries.read(f"{root}/extra/{formats.MEMBER}"))
            facts = formats.from_metadata(metadata, path, MEAN, STD)
            config = json.loads(entries.read(f"{root}/data/weights/model_weights_config.json"))["config"]
            state = {}
            for name, entry in config.items():
                numbers = entries.read(f"{root}/data/weights/{entry['path_name']}")
                state[name.removeprefix("model.")] = _pt2_tensor(numbers, entry)
    except WeightsError:
        raise
    except ArchiveError as error:
        raise WeightsError(f"{path}: not a usable .pt2 file: {error.message}", "export it again") from error
    except Exception as error:  # JSON of any form raises almost any type
        raise WeightsError(f"{path}: no .pt2 file of this program ({first_line(error)})", "export it again") from error
    return state, facts


def _pt2_tensor(content: bytes, entry: dict[str, Any]) -> Tensor:
    """One tensor by its entry in the .pt2 file's configuration; row by row, as this program writes them."""
    if entry["use_pickle"]:
        raise ValueError("a pickled tensor, which was not read")
    meta = entry["tensor_meta"]
    sizes, strides = ([int(number["as_int"]) for number in meta[key]] for key in ("sizes", "strides"))
    if strides != [math.prod(sizes[axis + 1 :]) for axis in range(len(sizes))] or meta["storage_offset"]["as_int"]:
        raise ValueError("a tensor that does not lie row by row")
    return torch.from_numpy(np.frombuffer(content, dtype=PT2_TYPES[meta["dtype"]]).reshape(sizes).copy())


def read_onnx(content: bytes, path: Path) -> tuple[OnnxModel, Facts]:
    """The model and facts in an .onnx file.

    Raises:
        WeightsError: it is damaged, hostile, or not of this program.
    """
    formats.require(FORMATS["onnx"].reading, str(path))
    import onnx

    try:
        graph = onnx.load_model_from_string(content)
        metadata = {entry.key: entry.value for entry in graph.metadata_props}
    except Exception as error:  # protobuf's errors have no common type
        raise WeightsError(f"{path}: not an .onnx file, or damaged ({first_line(error)})", "export it again") from error
    facts = formats.from_metadata(metadata, path, MEAN, STD)
    try:
        _require_bounded(graph)
        model = OnnxModel(content)
        model.session  # noqa: B018  # made here, so that a file that onnxruntime refuses is found now
    except Exception as error:  # those of onnx and onnxruntime have no common type
        raise WeightsError(f"{path}: not a usable model ({first_line(error)})", "export it again") from error
    return model, facts


class OnnxModel(nn.Module):
    """An ONNX model, computed on the CPU in float32 by onnxruntime.

    Images uint8 (B, 1, 28, 28) → log-probabilities (B, classes), where probabilities below 1e-38 count as that.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.content = content

    @functools.cached_property
    def session(self) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised
        return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        (probabilities,) = self.session.run(["probabilities"], {"images": images.squeeze(1).cpu().numpy()})
        found = torch.from_numpy(probabilities).to(images.device)
        return found.clamp_min(torch.finfo(found.dtype).tiny).log()


def _require_bounded(model: onnx.ModelProto) -> None:
    """Raise where a model could reach for other files, loop, or take more memory than its images account for."""
    import onnx

    graph = model.graph
    inputs = [(value.name, value.type.tensor_type.elem_type, _shape(value)) for value in graph.input]
    outputs = [value.name for value in graph.output]
    if inputs != [("images", onnx.TensorProto.UINT8, ["N", 28, 28])] or outputs != ["probabilities"]:
        raise ValueError(f"it is not one of {formats.WHOLE}")
    if len(graph.node) > MOST_ONNX_NODES or model.functions or graph.sparse_initializer:
        raise ValueError("its graph is none that this program writes")
    for node in graph.node:
        nested = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        if nested or node.domain not in ("", "ai.onnx"):
            raise ValueError(f"operator {node.domain}.{node.op_type} is none that this program writes")
    constants = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in (*graph.initializer, *constants)):
        raise ValueError("it refers to other files")
    onnx.checker.check_model(model)

    bare = onnx.ModelProto()  # without the sizes that the file itself claims, so that all are inferred
    bare.CopyFrom(model)
    bare.graph.ClearField("value_info")
    bare.graph.output[0].type.tensor_type.ClearField("shape")
    bare.graph.input[0].type.tensor_type.shape.dim[0].dim_value = ONNX_IMAGES
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    shapes = {value.name: _shape(value) for value in (*inferred.value_info, *inferred.output)}
    numbers = 0
    for name in (name for node in inferred.node for name in node.output if name):
        sizes = shapes.get(name, [None])
        if not all(isinstance(size, int) for size in sizes):
            raise ValueError(f"the size of {name[:60]!r} cannot be told before it is run")
        numbers += math.prod(sizes)
    if numbers > MOST_ONNX_NUMBERS:
        raise ValueError("it would take too much memory")


def _shape(value: onnx.ValueInfoProto) -> list[Any]:
    """A tensor's sizes: a number, the name of an open size, or None where nothing is known."""
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in sizes]
