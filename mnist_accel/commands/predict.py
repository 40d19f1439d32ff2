"""`mnist-accel predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mnist_accel.commands.common import DebugOption, guarded, print_errors, print_json
from mnist_accel.errors import EXIT_FAILED

if TYPE_CHECKING:
    from mnist_accel.pictures.predict import PictureResult


def predict(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Files, folders, patterns such as '*.png'; - for stdin.")
    ],
    weights: Annotated[Path, typer.Option(help="Weights of `train`, or an exported model.")] = Path(
        "mnist_cnn_model.pth"
    ),
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="How many labels to tell of each digit.")] = 3,
    save_input: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what the network saw, a 28×28 PNG a digit, in this folder.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list, an object a picture, as the last line of stdout.")
    ] = False,
    debug: DebugOption = False,
) -> None:
    """Read the digits in pictures: photos, scans, drawings; one digit or a number. Exit code 1 if a picture failed.

    For example:

      mnist-accel predict photo.jpg

      mnist-accel predict scans/ '*.png' --top-k 1 --json

      cat form.png | mnist-accel predict - --save-input seen
    """
    raise SystemExit(guarded(lambda: _predict(images, weights, top_k, save_input, json), debug=debug))


def _predict(images: list[str], weights: Path, top_k: int, save_input: Path | None, as_json: bool) -> int:
    from mnist_accel.files.atomic import require_writable
    from mnist_accel.models import classifier
    from mnist_accel.pictures import picture_file as picture
    from mnist_accel.pictures.predict import read_files
    from mnist_accel.reports import preview

    names = picture.find(images)
    if save_input:
        require_writable(save_input, "--save-input")
    console = preview.open_console(to_stderr=as_json)
    drawn = console.is_terminal and len(names) <= preview.MOST_DRAWN
    found: list[dict[str, Any]] = []
    failed = False
    taken: set[str] = set()
    for result in read_files(names, classifier.load(weights), top_k):
        if result.error is not None:
            failed = True
            print_errors([f"{result.file}: {result.error}"])
        elif drawn:
            preview.draw(console, result)
        elif not as_json:
            print(preview.line(result), flush=True)
        if save_input:
            _save(result, save_input, taken)
        if as_json:
            found.append(result.as_json())
    if as_json:
        print_json(found)
    return EXIT_FAILED if failed else 0


def _save(result: PictureResult, folder: Path, taken: set[str]) -> None:
    """One PNG a digit, named after its picture; pictures of the same name in different folders get numbers."""
    import io

    from PIL import Image

    from mnist_accel.files import atomic as files

    stem = "stdin" if result.file == "-" else Path(result.file).stem
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    contents = {}
    for position, digit in enumerate(result.digits, start=1):
        buffer = io.BytesIO()
        Image.fromarray(digit.image).save(buffer, "PNG")
        contents[folder / f"{name}_digit{position}_{digit.label.replace('/', ' ')}.png"] = buffer.getvalue()
    if contents:
        files.publish(contents)
