"""The formats that models are exported in: file names, and the packages that each needs.

Imports nothing heavy, so that a missing package is told before any work.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnist_accel.errors import UserError, did_you_mean
from mnist_accel.files import atomic as files

OPSET = 20
"""ONNX's operators: the newest set that torch writes by itself; onnxruntime reads it from 1.17 (2024) on."""


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: of its files.
        writing: packages that writing needs.
        reading: packages that reading needs.
        takes: what the model in such a file takes and gives.
    """

    suffix: str
    writing: tuple[str, ...]
    reading: tuple[str, ...]
    takes: str


WHOLE = "images uint8 (N, 28, 28), white on black → probabilities float32 (N, classes)"
FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", ("onnx", "onnxscript", "onnxruntime"), ("onnx", "onnxruntime"), WHOLE),
    "safetensors": Format(
        ".safetensors",
        ("safetensors",),
        ("safetensors",),
        "weights alone: images float32 (N, 1, 28, 28), (pixel / 255 - mean) / std → logits (N, classes)",
    ),
    "torch-export": Format(".pt2", (), (), WHOLE),
}


def require(packages: Iterable[str], wanted_by: str) -> None:
    """Make sure that packages of the extra `export` are there.

    Raises:
        UserError: naming the missing ones.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"{wanted_by} needs {' and '.join(missing)}, not installed here", 'pip install "mnist-accel[export]"'
        )


def target(format_name: str, source: Path, output: Path | None) -> Path:
    """The file that an export writes, after all checks that need no work; by default beside `source`.

    Raises:
        UserError: an unknown format, a missing package or file, or a name that readers would take for another format.
    """
    if format_name not in FORMATS:
        raise UserError(f"--format {format_name}: unknown", did_you_mean(format_name, FORMATS))
    kind = FORMATS[format_name]
    require(kind.writing, f"--format {format_name}")
    output = output or source.with_suffix(kind.suffix)
    if output.suffix != kind.suffix:
        raise UserError(f"--output {output}: files are read by their suffix", f"let it end in {kind.suffix}")
    if not os.path.isfile(source):  # noqa: PTH113  # Path.is_file raises where the name is too long
        raise UserError(f"--weights {source}: no such file", "train first (mnist-accel train) or name another")
    if files.exists(output) and source.samefile(output):
        raise UserError(f"--output {output}: would replace the weights themselves", "name another file")
    return output
