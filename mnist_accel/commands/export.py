"""`mnist-accel export`."""

from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, ModelOption, completing, print_json
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
    model: ModelOption = None,
    json: JsonOption = False,
) -> int:
    """Write trained weights for other programs. The file appears only if it gives the same probabilities.

    onnx and torch-export (.pt2) hold the whole model: it takes any number N of images, uint8 (N, 28, 28), white on
    black, and gives probabilities. safetensors holds the weights and the normalisation that they need.

    For example:
      mnist-accel export --format onnx
      mnist-accel export --format safetensors --weights other.pth --output other.safetensors --json
    """
    output = formats.target(format_name, weights, output)
    from dataclasses import asdict

    from mnist_accel.export.write import export
    from mnist_accel.reports.console import result_console
    from mnist_accel.reports.tables import print_export

    result = export(weights, format_name, output, model)
    print_export(result_console(to_stderr=json), result)
    if json:
        print_json(asdict(result))
    return 0
