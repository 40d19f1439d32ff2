from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, ModelOption, finish
from mnist_accel.errors import UserError, printable
from mnist_accel.files import atomic


def inspect(
    file: Annotated[Path, typer.Argument(help="Weights, exported model, checkpoint, or folder with checkpoints.")],
    model: ModelOption = None,
    json: JsonOption = False,
) -> int:
    """Show what a model file or checkpoint holds: format, architecture, classes, parameters, versions, SHA-256.

    For example:
      mnist-accel inspect mnist_cnn_model.pth
      mnist-accel inspect checkpoints --json
    """
    if not atomic.exists(file):
        raise UserError(f"{file}: no such file", "name weights, an exported model or a checkpoint")
    from mnist_accel.export.inspection import inspect
    from mnist_accel.reports.tables import print_facts, result_console

    found = inspect(file, model)
    facts = {
        "file": found["path"],
        "format": found["format"],
        "SHA-256": found["sha256"],
        "classes": found["classes"] and ", ".join(found["classes"]),
        "parameters": f"{found['parameters']:,}",
    } | {printable(name, 40): value for name, value in found["metadata"].items()}
    known = {name: value for name, value in facts.items() if value not in (None, "")}
    print_facts(result_console(to_stderr=json), known)
    return finish(found, json=json)
