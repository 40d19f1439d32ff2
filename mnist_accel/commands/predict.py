from pathlib import Path
from typing import Annotated, Literal

import typer

from mnist_accel.commands.common import JsonOption, ModelOption, finish, print_errors
from mnist_accel.errors import EXIT_FAILED, printable


def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Files, folders, patterns such as '*.png'; - for stdin.")
    ],
    weights: Annotated[Path, typer.Option(help="Weights, or an exported model.")] = Path("mnist_cnn_model.pth"),
    model: ModelOption = None,
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Number of labels to show for each digit.")] = 3,
    save_input: Annotated[Path | None, typer.Option(metavar="DIR", help="Save the network's 28×28 inputs.")] = None,
    save_picture: Annotated[Path | None, typer.Option(metavar="DIR", help="Save pictures with labelled boxes.")] = None,
    show: Annotated[Literal["doubtful", "all"], typer.Option(help="Digits to draw on the terminal.")] = "doubtful",
    json: JsonOption = False,
) -> int:
    """Read the digits in photos, scans and drawings; one digit or a number. Exit code 1 if a picture failed.

    For example:
      mnist-accel predict photo.jpg
      mnist-accel predict scans/ '*.png' --top-k 1 --json
      cat form.png | mnist-accel predict - --save-picture answers
    """
    from rich.console import Console

    from mnist_accel.files.atomic import require_writable
    from mnist_accel.models import classifier
    from mnist_accel.pictures import picture_file
    from mnist_accel.pictures.predict import read_pictures
    from mnist_accel.pictures.saved import save
    from mnist_accel.reports import predictions_table

    names = picture_file.find(images)
    for folder, option in ((save_input, "--save-input"), (save_picture, "--save-picture")):
        if folder:
            require_writable(folder, option)
    console, results, taken = Console(highlight=False), [], set[str]()
    for result in read_pictures(names, classifier.load(weights, model=model), top_k):
        results.append(result)
        if result.error is not None:
            print_errors([f"{printable(result.file, 150)}: {result.error}"])
        elif not json:
            predictions_table.show(console, result, show_all=show == "all")
        save(result, save_input, save_picture, taken)
    if not json:
        predictions_table.summarise(console, results)
    code = EXIT_FAILED if any(result.error is not None for result in results) else 0
    return finish([result.as_json() for result in results], json=json, code=code)
