"""The formats of exported models: file suffixes and required packages. Imports nothing heavy."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mnist_accel.errors import UserError, did_you_mean
from mnist_accel.files import atomic
from mnist_accel.files.exported import require_packages

OPSET = 20
"""The newest set of ONNX operators that torch writes without conversion; onnxruntime 1.17 (2024) and later read it."""


class Format(NamedTuple):
    """The suffix of a format's files, the inputs and outputs of their models, and the packages that write them."""

    suffix: str
    takes: str
    packages: tuple[str, ...] = ()


WHOLE_MODEL = "images uint8 (N, 28, 28), white on black → probabilities float32 (N, classes)"
WEIGHTS = "weights alone: images float32 (N, 1, 28, 28), (pixel / 255 - mean) / std → logits (N, classes)"
FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", WHOLE_MODEL, ("onnx", "onnxscript", "onnxruntime")),
    "safetensors": Format(".safetensors", WEIGHTS),
    "torch-export": Format(".pt2", WHOLE_MODEL),
}


def target(format_name: str, source: Path, output: Path | None) -> Path:
    """The file that an export writes; by default beside `source`. Makes all checks that need no torch."""
    if format_name not in FORMATS:
        raise UserError(f"--format {format_name}: unknown", did_you_mean(format_name, FORMATS))
    kind = FORMATS[format_name]
    require_packages(kind.packages, f"--format {format_name}")
    output = output or source.with_suffix(kind.suffix)
    if output.suffix != kind.suffix:
        raise UserError(f"--output {output}: the suffix does not tell the format", f"let it end in {kind.suffix}")
    if not atomic.exists(source):
        raise UserError(f"--weights {source}: no such file", "train first (mnist-accel train) or name another")
    if atomic.exists(output) and source.samefile(output):
        raise UserError(f"--output {output}: would replace the weights themselves", "name another file")
    return output
