from pathlib import Path
from typing import Annotated, Literal

import typer

from mnist_accel.commands.common import JsonOption, ModelOption, finish
from mnist_accel.errors import NO_WEIGHTS, UserError
from mnist_accel.files import atomic


def export(
    format_name: Annotated[Literal["onnx", "safetensors", "torch-export"], typer.Option("--format", help="Format.")],
    weights: Annotated[Path, typer.Option(help="Weights file (.pth).")] = Path("mnist_cnn_model.pth"),
    output: Annotated[Path | None, typer.Option(help="File to write; by default beside the weights.")] = None,
    model: ModelOption = None,
    half: Annotated[bool, typer.Option("--half", help="Write float16 weights: half the size, rounded.")] = False,
    json: JsonOption = False,
) -> int:
    """Write trained weights for other programs, with MODEL_CARD.md beside them. Writes nothing if results differ.

    onnx and torch-export (.pt2) hold the whole model: it takes any number N of images, uint8 (N, 28, 28), white on
    black, and gives probabilities. safetensors holds the weights and the normalisation that they need.

    For example:
      mnist-accel export --format onnx
      mnist-accel export --format safetensors --weights other.pth --output other.safetensors --half --json
    """
    output = target(format_name, weights, output)
    from mnist_accel.export.write import export
    from mnist_accel.reports.tables import print_facts, result_console

    result = export(weights, format_name, output, model, half=half)
    opset = f", opset {result['opset']}" if result["opset"] else ""
    facts = {
        "file": f"{result['output']}: {result['bytes']:,} bytes, {result['format']}, {result['weights']}{opset}",
        "model": f"{result['model']}, {result['classes']} classes",
        "takes": result["takes"],
        "checked": f"on {result['samples']:,} digits against the original: probabilities differ by at most "
        f"{result['largest_difference']:.1e}, predictions differ on {result['other_predictions']}",
        "card": result["model_card"],
    }
    print_facts(result_console(to_stderr=json), facts)
    return finish(result, json=json)


def target(format_name: str, source: Path, output: Path | None) -> Path:
    """The file that an export writes; by default beside `source`. Makes all checks that need no torch."""
    from mnist_accel.files.exported import FORMATS, require_packages  # here, for the start-up time

    suffix = FORMATS[format_name].suffix
    require_packages(FORMATS[format_name].packages, f"--format {format_name}")
    output = output or source.with_suffix(suffix)
    if output.suffix != suffix:
        raise UserError(f"--output {output}: the suffix does not tell the format", f"let it end in {suffix}")
    if not atomic.exists(source):
        raise UserError(f"--weights {source}: {NO_WEIGHTS}")
    if atomic.exists(output) and source.samefile(output):
        raise UserError(f"--output {output}: would replace the weights themselves", "name another file")
    return output
