"""`mnist-accel export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import DebugOption, JsonOption, completing, guarded, print_json
from mnist_accel.export import formats

NAMES = tuple(formats.FORMATS)


def export(
    format_name: Annotated[
        str, typer.Option("--format", metavar="|".join(NAMES), help="Format.", autocompletion=completing(NAMES))
    ],
    weights: Annotated[Path, typer.Option(help="Weights file (.pth).")] = Path("mnist_cnn_model.pth"),
    output: Annotated[
        Path | None, typer.Option(help="File to write; by default beside the weights.", show_default=False)
    ] = None,
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write trained weights for other programs. The file appears only if it gives the same probabilities.

    onnx and torch-export (.pt2) hold the whole model: it takes any number N of images, uint8 (N, 28, 28), white on
    black, and gives probabilities. safetensors holds the weights and the normalisation that they need.

    For example:

      mnist-accel export --format onnx

      mnist-accel export --format safetensors --weights other.pth --output other.safetensors --json
    """
    raise SystemExit(guarded(lambda: _export(weights, format_name, output, json), debug=debug))


def _export(source: Path, format_name: str, output: Path | None, as_json: bool) -> int:
    output = formats.target(format_name, source, output)
    from dataclasses import asdict

    from mnist_accel.export.write import export
    from mnist_accel.reports.console import result_console
    from mnist_accel.reports.tables import print_export

    result = export(source, format_name, output)
    print_export(result_console(to_stderr=as_json), result)
    if as_json:
        print_json(asdict(result))
    return 0
