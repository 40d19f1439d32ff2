"""The formats of exported models, and readers of such files, which may be of untrusted origin."""

import importlib.util
import json
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import TypeAdapter

from mnist_accel.errors import UserError, WeightsError
from mnist_accel.files.run_record import PlainText
from mnist_accel.files.untrusted import refusing

if TYPE_CHECKING:
    from torch import Tensor

METADATA_VERSION = "1"  # of the metadata in an exported file, under the key `mnist_accel_facts`


class Format(NamedTuple):
    """A format of exported models."""

    suffix: str
    takes: str  # inputs and outputs of the models
    packages: tuple[str, ...] = ()  # that write it


WHOLE_MODEL = "images uint8 (N, 28, 28), white on black → probabilities float32 (N, classes)"
WEIGHTS = "weights alone: images float32 (N, 1, 28, 28), (pixel / 255 - mean) / std → logits (N, classes)"
FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", WHOLE_MODEL, ("onnx", "onnxscript", "onnxruntime")),
    "safetensors": Format(".safetensors", WEIGHTS),
    "torch-export": Format(".pt2", WHOLE_MODEL),
}


def require_packages(packages: Iterable[str], wanted_by: str) -> None:
    """Raise UserError if packages of the extra `export` are missing; the message names them."""
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        problem = f"{wanted_by} needs {' and '.join(missing)}, not installed here"
        raise UserError(problem, 'pip install "mnist-accel[export]"')


def read_safetensors(content: bytes, path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The tensors and the metadata of a .safetensors file; the metadata is empty if another program wrote the file."""
    import safetensors.torch

    with _refusing(path):
        state = safetensors.torch.load(content)  # compares the header with the size of the content
        metadata = metadata_of(content)
    return state, metadata if "mnist_accel_facts" in metadata else {}


def metadata_of(content: bytes) -> dict[str, Any]:
    """The metadata of a .safetensors file, unchecked. Raises an error of any kind if the file is damaged."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length]).get("__metadata__") or {})


def read_onnx(content: bytes, path: Path) -> dict[str, Any]:
    """The metadata of an .onnx file with its `opset` and the number of its `parameters`. Nothing in the file is run."""
    require_packages(("onnx", "onnxruntime"), str(path))
    import onnx
    from onnx.external_data_helper import uses_external_data

    with _refusing(path):
        model = onnx.load_model_from_string(content)
        if any(uses_external_data(tensor) for tensor in model.graph.initializer):
            raise ValueError("it refers to other files, which are not read")
        metadata: dict[str, Any] = {entry.key: entry.value for entry in model.metadata_props}
        opset = max((opset.version for opset in model.opset_import), default=None)
        # 1 and 10: float32 and float16. Sizes and indices are whole numbers, mean and deviation have no dimensions.
        kept = [math.prod(part.dims) for part in model.graph.initializer if part.dims and part.data_type in (1, 10)]
    return metadata | {"opset": opset, "parameters": sum(kept)}


def class_names_of(metadata: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The class names in the metadata of a file that this version of this program has exported."""
    if metadata.get("mnist_accel_facts") != METADATA_VERSION:
        raise WeightsError(f"{path}: not exported by this program, or by a later version", "export the .pth file again")
    with _refusing(path):
        return tuple(TypeAdapter(list[PlainText]).validate_json(metadata.get("class_names", "")))


def _refusing(path: Path) -> AbstractContextManager[None]:
    return refusing(WeightsError, f"{path}: damaged, or not {path.suffix}", "copy or export it again")
