"""Exported models, read as a stranger's input: no code in them runs, and they cannot fill the memory."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_accel import __version__
from mnist_accel.errors import WeightsError
from mnist_accel.export import formats
from mnist_accel.export.formats import FORMATS, Format
from mnist_accel.files import pth as archive
from mnist_accel.files.pth import ArchiveError, first_line
from mnist_accel.models.normalisation import MEAN, STD

if TYPE_CHECKING:
    import onnx
    import onnxruntime

FACTS_VERSION = 1
"""Of the facts in an exported file; a reader refuses a higher one."""
MEMBER = "facts.json"
"""Where a .pt2 file has its facts."""
ONNX_IMAGES, MOST_ONNX_NUMBERS = 256, 2**28
"""For so many images all operators together may give so many numbers (1 GB); those of the model `cnn` give 2**25."""
MOST_ONNX_NODES = 1000
PT2_TYPES = {5: np.int64, 7: np.float32}
"""Element types by their number in torch's export schema (ScalarType in torch/_export/serde/schema.py)."""


@dataclass(frozen=True)
class Facts:
    """What a file says of the model in it.

    Attributes:
        model: the architecture's name, or None where nothing says it.
        class_names: None where nothing says them.
        trained_on: the data set's name, or None.
    """

    model: str | None = None
    class_names: tuple[str, ...] | None = None
    trained_on: str | None = None


def as_metadata(facts: Facts, kind: Format, source_sha256: str) -> dict[str, str]:
    """The facts as exported files carry them: texts by name.

    Args:
        source_sha256: of the weights file that was exported.
    """
    return {
        "mnist_accel_facts": str(FACTS_VERSION),
        "mnist_accel": __version__,
        "model": facts.model or "",
        "class_names": json.dumps(facts.class_names, ensure_ascii=False),
        "trained_on": facts.trained_on or "",
        "mean": repr(MEAN),
        "std": repr(STD),
        "takes": kind.takes,
        "source_sha256": source_sha256,
    }


def from_metadata(metadata: Mapping[str, str], path: Path) -> Facts:
    """What `as_metadata` wrote.

    Raises:
        WeightsError: it is something else, or of a later version, or of another normalisation.
    """
    version = metadata.get("mnist_accel_facts")
    if version is None:
        raise WeightsError(f"{path}: not exported by this program", "export the .pth file (mnist-accel export)")
    if version != str(FACTS_VERSION):
        raise WeightsError(f"{path}: exported by another version (facts {version[:20]!r})", "export it again")
    try:
        names = json.loads(metadata["class_names"])
        same = (float(metadata["mean"]), float(metadata["std"])) == (MEAN, STD)
        model, trained_on = metadata["model"], metadata["trained_on"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class names")
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its facts are damaged ({error})", "export it again") from error
    if not same:
        raise WeightsError(f"{path}: of another normalisation than mean {MEAN}, std {STD}", "export it again")
    return Facts(model or None, tuple(names), trained_on or None)


def digest(tensors: Mapping[str, bytes]) -> str:
    """SHA-256 of all tensors' bytes in the order of their names; these formats have no checksum of their own."""
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        hashed.update(tensors[name])
    return hashed.hexdigest()


def state_bytes(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Tensors as `digest` takes them."""
    return {name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in state.items()}


def onnx_bytes(proto: onnx.ModelProto) -> dict[str, bytes]:
    """An ONNX model's tensors as `digest` takes them."""
    return {tensor.name: tensor.raw_data for tensor in proto.graph.initializer}


def _require_digest(metadata: Mapping[str, str], tensors: Mapping[str, bytes]) -> None:
    if "mnist_accel_facts" in metadata and metadata.get("tensors_sha256") != digest(tensors):
        raise ValueError("damaged: its tensors have another SHA-256")


def read_safetensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors in a .safetensors file, and what `as_metadata` wrote; nothing where another program did.

    Raises:
        WeightsError: it is damaged.
    """
    formats.require(FORMATS["safetensors"].reading, str(path))
    import safetensors.torch

    try:
        state = safetensors.torch.load(content)  # checks the header's sizes against the content
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        _require_digest(metadata, state_bytes(state))
    except Exception as error:  # safetensors raises its own, and json its own
        raise WeightsError(f"{path}: not a whole .safetensors file ({first_line(error)})", "export it again") from error
    state = dict(sorted(state.items()))  # the library's own order changes from run to run
    return state, metadata if "mnist_accel_facts" in metadata else {}


def read_pt2(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in a .pt2 file of `torch.export`, and what `as_metadata` wrote. Its program is not loaded.

    torch.export.load (torch 2.15) can run foreign code: it unpickles what the file marks as pickled, and hands
    expressions to SymPy, which evaluates them as Python. The weights themselves lie there as plain numbers.

    Raises:
        WeightsError: it is damaged, hostile, or of another program.
    """
    try:
        with archive.open_plain(content) as entries:
            root = entries.namelist()[0].split("/")[0]
            metadata = json.loads(entries.read(f"{root}/extra/{MEMBER}"))
            config = json.loads(entries.read(f"{root}/data/weights/model_weights_config.json"))["config"]
            state = {}
            for name, entry in config.items():
                numbers = entries.read(f"{root}/data/weights/{entry['path_name']}")
                state[name.removeprefix("model.")] = _pt2_tensor(numbers, entry)
    except ArchiveError as error:
        raise WeightsError(f"{path}: not a usable .pt2 file: {error.message}", "export it again") from error
    except Exception as error:  # JSON of any form raises almost any type
        raise WeightsError(f"{path}: no .pt2 file of this program ({first_line(error)})", "export it again") from error
    return state, metadata


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
    proto, metadata = parse_onnx(content, path)
    facts = from_metadata(metadata, path)
    require_bounded(proto, path)
    model = OnnxModel(content, path)
    try:
        model.session  # noqa: B018  # made here, so that a file that onnxruntime refuses is found now
    except Exception as error:  # onnxruntime's errors have no common type
        raise WeightsError(f"{path}: not a usable model ({first_line(error)})", "export it again") from error
    return model, facts


def parse_onnx(content: bytes, path: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """An .onnx file's parts, and what `as_metadata` wrote; nothing of it is run.

    Raises:
        WeightsError: it is damaged.
    """
    formats.require(FORMATS["onnx"].reading, str(path))
    import onnx

    try:
        proto = onnx.load_model_from_string(content)
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        _require_digest(metadata, onnx_bytes(proto))
        return proto, metadata
    except Exception as error:  # protobuf's errors have no common type
        raise WeightsError(f"{path}: not an .onnx file, or damaged ({first_line(error)})", "export it again") from error


def require_bounded(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse a model that could reach for other files, loop, or take more memory than its images account for.

    Raises:
        WeightsError: saying why.
    """
    try:
        _require_bounded(proto)
    except Exception as error:  # onnx's errors have no common type
        raise WeightsError(f"{path}: not a usable model ({first_line(error)})", "export it again") from error


def onnx_type_name(number: int) -> str:
    """An element type's name, as ONNX writes it."""
    import onnx

    return str(onnx.TensorProto.DataType.Name(number)).lower()


class OnnxModel(nn.Module):
    """An ONNX model, computed on the CPU in float32 by onnxruntime.

    Images uint8 (B, 1, 28, 28) → log-probabilities (B, classes), where probabilities below 1e-38 count as that.
    """

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__()
        self.content, self.path = content, path

    @functools.cached_property
    def session(self) -> onnxruntime.InferenceSession:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4  # errors are raised
        return onnxruntime.InferenceSession(self.content, options, providers=["CPUExecutionProvider"])

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.squeeze(1).cpu().numpy()
        try:
            (probabilities,) = self.session.run(["probabilities"], {"images": pixels})
        except Exception as error:  # onnxruntime's errors have no common type
            raise WeightsError(f"{self.path}: cannot be run ({first_line(error)})", "export it again") from error
        found = torch.from_numpy(probabilities).to(images.device)
        return found.clamp_min(torch.finfo(found.dtype).tiny).log()


def _require_bounded(model: onnx.ModelProto) -> None:
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
    if len(shapes["probabilities"]) != 2 or shapes["probabilities"][0] != ONNX_IMAGES:
        raise ValueError("it does not give a row of probabilities for each image")
    numbers = 0
    for name in (name for node in inferred.node for name in node.output if name):
        sizes = shapes.get(name, [None])
        if not all(isinstance(size, int) for size in sizes):
            raise ValueError(f"the size of {name[:60]!r} cannot be told before it is run")
        numbers += math.prod(sizes)
    if numbers > MOST_ONNX_NUMBERS:
        raise ValueError("it would take too much memory")


def _shape(value: onnx.ValueInfoProto) -> list[Any]:
    """A tensor's sizes: numbers, names of open ones, None where nothing is known; [None] where not even how many."""
    if not value.type.tensor_type.HasField("shape"):
        return [None]
    sizes = value.type.tensor_type.shape.dim
    return [size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in sizes]
