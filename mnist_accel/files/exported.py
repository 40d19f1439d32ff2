"""Safe readers for exported models of untrusted origin: .safetensors and .onnx files, and their metadata."""

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from mnist_accel.errors import UserError, WeightsError, printable
from mnist_accel.files.run_record import PlainText

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


def digest(tensors: "Mapping[str, Tensor] | onnx.ModelProto") -> str:
    """SHA-256 of the bytes of all tensors in the order of their names. The formats have no checksum of their own."""
    if isinstance(tensors, Mapping):
        parts = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    else:
        parts = {tensor.name: tensor.raw_data for tensor in tensors.graph.initializer}
    return hashlib.sha256(b"".join(parts[name] for name in sorted(parts))).hexdigest()


def read_safetensors(content: bytes, path: Path) -> "tuple[dict[str, Tensor], dict[str, str]]":
    """The tensors and the metadata of a .safetensors file; the metadata is empty if another program wrote the file.

    Raises:
        WeightsError: the file is damaged.
    """
    import safetensors.torch

    try:
        state = safetensors.torch.load(content)  # compares the header with the size of the content
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
        _require_digest(metadata, state)
    except Exception as error:  # safetensors and json raise errors of their own
        raise _damaged(path, error) from error
    state = dict(sorted(state.items()))  # the order of safetensors changes from run to run
    return state, metadata if "mnist_accel_facts" in metadata else {}


def read_onnx(content: bytes, path: Path) -> "tuple[onnx.ModelProto, dict[str, str]]":
    """The model and the metadata of an .onnx file. Nothing in the file is run.

    Raises:
        WeightsError: the file is damaged, or refers to other files.
        UserError: the package onnx is missing.
    """
    require_packages(("onnx", "onnxruntime"), str(path))
    import onnx
    from onnx.external_data_helper import uses_external_data

    try:
        model = onnx.load_model_from_string(content)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        _require_digest(metadata, model)
        if any(uses_external_data(part) for part in _parts(model) if isinstance(part, onnx.TensorProto)):
            raise ValueError("it refers to other files, which are not read")
    except Exception as error:  # the errors of protobuf have no common type
        raise _damaged(path, error) from error
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
    if metadata.get("mnist_accel_facts") != METADATA_VERSION:
        raise WeightsError(f"{path}: not exported by this program, or by a later version", "export the .pth file again")
    try:
        return tuple(TypeAdapter(list[PlainText]).validate_json(metadata.get("class_names", "")))
    except ValueError as error:
        raise _damaged(path, error) from error


def _require_digest(metadata: Mapping[str, str], tensors: "Mapping[str, Tensor] | onnx.ModelProto") -> None:
    if "mnist_accel_facts" in metadata and metadata.get("tensors_sha256") != digest(tensors):
        raise ValueError("its tensors have another SHA-256")


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path}: damaged, or not {path.suffix} ({printable(error, 120)})", "copy or export it again")
