"""The formats that models are exported in: file names, the packages each needs, and the facts that each file carries.

Imports nothing heavy, so that a missing package is told before any work.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnist_accel import __version__
from mnist_accel.errors import UserError, WeightsError
from mnist_accel.names import did_you_mean

FACTS_VERSION = 1
"""Of the facts in an exported file; a reader refuses a higher one."""
OPSET = 20
"""ONNX's operators: the newest set that torch writes by itself; onnxruntime reads it from 1.17 (2024) on."""
MEMBER = "facts.json"
"""Where a .pt2 file has its facts."""


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
    if os.path.exists(output) and os.path.samefile(source, output):  # noqa: PTH110, PTH121
        raise UserError(f"--output {output}: would replace the weights themselves", "name another file")
    return output


def as_metadata(facts: Facts, kind: Format, mean: float, std: float, source_sha256: str) -> dict[str, str]:
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
        "mean": repr(mean),
        "std": repr(std),
        "takes": kind.takes,
        "source_sha256": source_sha256,
    }


def from_metadata(metadata: Mapping[str, str], path: Path, mean: float, std: float) -> Facts:
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
        same = (float(metadata["mean"]), float(metadata["std"])) == (mean, std)
        model, trained_on = metadata["model"], metadata["trained_on"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class names")
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its facts are damaged ({error})", "export it again") from error
    if not same:
        raise WeightsError(f"{path}: of another normalisation than mean {mean}, std {std}", "export it again")
    return Facts(model or None, tuple(names), trained_on or None)
