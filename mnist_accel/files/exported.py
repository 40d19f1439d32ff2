"""Safe readers for exported models of untrusted origin: .safetensors and .onnx files, and their metadata."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_accel.errors import UserError, WeightsError, printable

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

METADATA_VERSION = "1"
"""Of the metadata in an exported file, under the key `mnist_accel_facts`."""


def require_packages(packages: Iterable[str], wanted_by: str) -> None:
    """Raise UserError if packages of the extra `export` are missing; the message names them."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"{wanted_by} needs {' and '.join(missing)}, not installed here", 'pip install "mnist-accel[export]"'
        )


def digest(tensors: Mapping[str, bytes]) -> str:
    """SHA-256 of the bytes of all tensors in the order of their names. The formats have no checksum of their own."""
    hashed = hashlib.sha256()
    for name in sorted(tensors):
        hashed.update(tensors[name])
    return hashed.hexdigest()


def tensor_bytes(state: Mapping[str, Tensor]) -> dict[str, bytes]:
    """The tensors of a state dict as `digest` takes them."""
    import torch

    return {name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in state.items()}


def onnx_bytes(model: onnx.ModelProto) -> dict[str, bytes]:
    """The weights of an ONNX model as `digest` takes them."""
    return {tensor.name: tensor.raw_data for tensor in model.graph.initializer}


def onnx_tensors(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """Name, shape, type and bytes of each weight of an ONNX model."""
    import onnx

    names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    return [
        {
            "name": printable(tensor.name, 100),
            "shape": list(tensor.dims),
            "type": names.get(tensor.data_type, f"unknown ({tensor.data_type})"),
            "bytes": len(tensor.raw_data),
        }
        for tensor in model.graph.initializer
    ]


def read_safetensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a .safetensors file; the metadata is empty if another program wrote the file.

    Raises:
        WeightsError: the file is damaged.
    """
    import safetensors.torch

    try:
        state = safetensors.torch.load(content)  # compares the header with the size of the content
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
        _require_digest(metadata, tensor_bytes(state))
    except Exception as error:  # safetensors and json raise errors of their own
        raise WeightsError(
            f"{path}: not a .safetensors file, or damaged ({printable(error, 120)})", "copy it again"
        ) from error
    state = dict(sorted(state.items()))  # the order of safetensors changes from run to run
    return state, metadata if "mnist_accel_facts" in metadata else {}


def read_onnx(content: bytes, path: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The model and the metadata of an .onnx file. Nothing in the file is run.

    Raises:
        WeightsError: the file is damaged, or refers to other files.
        UserError: the package onnx is missing.
    """
    require_packages(("onnx", "onnxruntime"), str(path))
    import onnx

    try:
        model = onnx.load_model_from_string(content)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        _require_digest(metadata, onnx_bytes(model))
    except Exception as error:  # the errors of protobuf have no common type
        problem = f"{path}: not an .onnx file, or damaged ({printable(error, 120)})"
        raise WeightsError(problem, "copy it again") from error
    tensors = (part for part in _parts(model) if isinstance(part, onnx.TensorProto))
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise WeightsError(f"{path}: refers to other files, which are not read", "export it with its weights inside")
    return model, metadata


def _parts(message: Any) -> Iterator[Any]:
    """A protobuf message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "__len__") else (value,):
                yield from _parts(part)


def class_names_of(metadata: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """The class names in the metadata of an exported file.

    Raises:
        WeightsError: another program, or another version of this one, wrote the file, or its metadata is damaged.
    """
    if "mnist_accel_facts" not in metadata:
        raise WeightsError(f"{path}: not exported by this program", "export the .pth file (mnist-accel export)")
    if metadata["mnist_accel_facts"] != METADATA_VERSION:
        raise WeightsError(f"{path}: exported by a later version", "export it again")
    try:
        names = json.loads(metadata["class_names"])
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its metadata is damaged ({printable(error, 120)})", "export it again") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WeightsError(f"{path}: its metadata has no class names", "export it again")
    return tuple(names)


def _require_digest(metadata: Mapping[str, str], tensors: Mapping[str, bytes]) -> None:
    if "mnist_accel_facts" in metadata and metadata.get("tensors_sha256") != digest(tensors):
        raise ValueError("its tensors have another SHA-256")
