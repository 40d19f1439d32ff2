"""Measures how `mnist-accel predict` reads drawn pictures of many kinds (scripts/picture_scenes.py).

A picture is right if all its digits are, in order, and nothing else was read. A wrong answer without any doubt is
silent. Of pictures without a digit, only an error or a doubt is right; of blank ones, only "blank". A digit is right
if its picture gave the right number of digits, and this one at its place.

python -m scripts.accuracy_pictures --weights mnist_cnn_model.pth
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from mnist_accel.data import datasets as data
from mnist_accel.models import classifier
from mnist_accel.pictures import picture_file
from mnist_accel.pictures import predict as prediction
from mnist_accel.pictures.predict import PictureResult
from scripts import picture_scenes as scenes

WITHOUT_DIGITS = ("letters", "rulings", "blots")
WITH_GAPS = ("rows", "wide gaps")
"""Here the rows and the writer's gaps have to be right, too."""
OUTCOMES = ("right", "silent wrong", "doubted wrong", "error")
COLUMNS = ("pictures", *OUTCOMES, "false doubt", "digits", "digits right", "of these doubted")


def main() -> None:
    """Draw the pictures, read them, and print a table, or the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("mnist_cnn_model.pth"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="mnist", help="digits of its test part are drawn")
    parser.add_argument("--pictures", type=int, default=100, help="of each kind")
    parser.add_argument("--kinds", nargs="*", default=list(scenes.KINDS), help=", ".join(scenes.KINDS))
    parser.add_argument("--choosing", action="store_true", help="draw the set on which methods are chosen")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save", type=Path, help="save the pictures that were not read right in this folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = classifier.load(options.weights)
    figures, sure = {}, []
    for kind in options.kinds:
        figures[kind], found = trial(kind, source(options, kind), model, options.pictures, options.save)
        sure += found
        print(f"{kind}: {figures[kind]}", file=sys.stderr)
    figures["all"] = {name: sum(one[name] for one in figures.values()) for name in COLUMNS}
    error = round(calibration_error(sure), 4)
    if options.json:
        print(json.dumps({"weights": str(options.weights), "kinds": figures, "calibration_error": error}))
    else:
        show(figures, error)


def source(options: argparse.Namespace, kind: str) -> scenes.Source:
    """The first half of the test digits and DejaVu's fonts to choose methods; the second and other fonts to report."""
    test = data.load(options.dataset, options.data_dir, lambda *_: None).test
    half = slice(0, len(test) // 2) if options.choosing else slice(len(test) // 2, None)
    fonts = scenes.CHOSEN_FONTS if options.choosing else scenes.OTHER_FONTS
    seed = [options.seed, int(options.choosing), list(scenes.KINDS).index(kind)]
    return scenes.Source(test.images[half], test.labels[half], fonts, seed)


def trial(
    kind: str, source: scenes.Source, model: classifier.Classifier, pictures: int, folder: Path | None
) -> tuple[dict[str, int], list[tuple[float, bool]]]:
    """The number of pictures with each outcome; and each digit's probability with whether it is right."""
    drawn = [scenes.KINDS[kind](source) for _ in range(pictures)]
    figures = dict.fromkeys(COLUMNS, 0) | {"pictures": pictures}
    sure: list[tuple[float, bool]] = []
    images = [Image.fromarray(pixels) for pixels, _ in drawn]
    results = prediction.read_pictures([picture_file.from_image(image) for image in images], model)
    for number, (result, (pixels, text)) in enumerate(zip(results, drawn, strict=True)):
        outcome = outcome_of(kind, result, text)
        figures[outcome] += 1
        digits = "".join(text.split())
        if digits:
            figures["false doubt"] += outcome == "right" and any(digit.doubt for digit in result.digits)
            figures["digits"] += len(digits)
            if len(digits) == len(result.digits):
                pairs = [(digit, digit.label == label) for digit, label in zip(result.digits, digits, strict=True)]
                figures["digits right"] += sum(is_right for _, is_right in pairs)
                figures["of these doubted"] += sum(is_right and bool(digit.doubt) for digit, is_right in pairs)
                sure += [(digit.probability, is_right) for digit, is_right in pairs]
        if folder and outcome != "right":
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{kind}-{number:03d} {outcome} {digits[:12] or 'none'} as {result.text[:12] or 'none'}.png"
            Image.fromarray(pixels).save(folder / name)
    return figures, sure


def outcome_of(kind: str, result: PictureResult, text: str) -> str:
    """One of `OUTCOMES`."""
    doubted = any(digit.doubt for digit in result.digits)
    if kind == "blank":
        return "right" if "blank" in (result.error or "") else "doubted wrong" if doubted else "silent wrong"
    if kind in WITHOUT_DIGITS:
        return "right" if result.error or doubted else "silent wrong"
    if result.error:
        return "error"
    is_right = "\n".join(result.lines) == text if kind in WITH_GAPS else result.text == "".join(text.split())
    if is_right:
        return "right"
    return "doubted wrong" if doubted else "silent wrong"


def calibration_error(sure: list[tuple[float, bool]], bins: int = 15) -> float:
    """The expected calibration error: the mean distance of probability and accuracy over bins of probability."""
    probability, right = np.array(sure, dtype=np.float64).reshape(-1, 2).T
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [abs(np.sum(probability[place == number] - right[place == number])) for number in range(bins)]
    return float(sum(gaps)) / max(1, len(right))


def show(figures: dict[str, dict[str, int]], error: float) -> None:
    """The table on stdout."""
    table = Table("kind", *COLUMNS, title="Whole pictures")
    for kind, one in figures.items():
        table.add_row(kind, *map(str, one.values()))
    console = Console(width=110)
    console.print(table)
    console.print(f"expected calibration error of digits: {error:.2%}")


if __name__ == "__main__":
    main()
