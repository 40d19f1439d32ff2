"""Measures how many digits `mnist-accel predict` reads correctly: single MNIST test digits, and numbers of 2 to 5.

Each picture has random colours of ink and paper (a quarter are light on dark), gradient of light, scale, position,
rotation by up to 15 degrees, noise and JPEG quality. A digit of a number counts as right only if its picture gave the
right number of digits, and this digit at its place. A digit missed, split or invented makes its whole picture wrong.

python scripts/accuracy_pictures.py --weights mnist_cnn_model.pth --data-dir data
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from mnist_accel.data import datasets as data
from mnist_accel.data.digits import Digits
from mnist_accel.models import classifier
from mnist_accel.models.classifier import Classifier
from mnist_accel.pictures import picture_file
from mnist_accel.pictures import predict as prediction
from mnist_accel.training.metrics import wilson_interval

LEAST_CONTRAST = 60
"""Of brightness between ink and paper, of 255."""
BRIGHTNESS = np.array([0.299, 0.587, 0.114])


def main() -> None:
    """Make the pictures, read them, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("mnist_cnn_model.pth"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="mnist", help="digits of its test part are drawn")
    parser.add_argument("--pictures", type=int, default=1000, help="number of pictures of one digit, and of several")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-wrong", type=Path, help="save wrongly read pictures in this folder")
    options = parser.parse_args()
    model = classifier.load(options.weights)
    test = data.load(options.dataset, options.data_dir, print).test
    single = trial(test, model, options.pictures, (1, 1), options.seed, options.save_wrong)
    several = trial(test, model, options.pictures, (2, 5), options.seed + 1, options.save_wrong)
    print(json.dumps({"weights": str(options.weights), "seed": options.seed, "single": single, "numbers": several}))


def trial(
    test: Digits, model: Classifier, pictures: int, lengths: tuple[int, int], seed: int, wrong: Path | None
) -> dict[str, object]:
    """Accuracy on `pictures` pictures, each of which has lengths[0] to lengths[1] digits."""
    random = np.random.default_rng(seed)
    digits, right, whole, doubted_wrong, doubted_right = 0, 0, 0, 0, 0
    for number in range(pictures):
        chosen = random.choice(len(test), size=random.integers(lengths[0], lengths[1] + 1), replace=False)
        content = as_jpeg(draw(test.images[chosen], random), random)
        [result] = prediction.read_pictures(
            [picture_file.decode(content).pixels], model
        )  # as a file of this content is read
        expected = [str(label) for label in test.labels[chosen]]
        found = [digit.label for digit in result.digits]
        hits = sum(a == b for a, b in zip(expected, found, strict=False)) if len(expected) == len(found) else 0
        digits, right, whole = digits + len(expected), right + hits, whole + (hits == len(expected))
        doubted = any(digit.doubt for digit in result.digits) or result.error is not None
        doubted_wrong += doubted and hits < len(expected)
        doubted_right += doubted and hits == len(expected)
        if wrong and hits < len(expected):
            wrong.mkdir(parents=True, exist_ok=True)
            name = f"{lengths[0]}-{number:04d}_{''.join(expected)}_read_{''.join(found) or 'none'}.jpg"
            (wrong / name).write_bytes(content)
    return {
        "pictures": pictures,
        "digits": digits,
        "digits_right": right,
        "accuracy": round(right / digits, 4),
        "accuracy_ci95": [round(edge, 4) for edge in wilson_interval(right, digits)],
        "pictures_all_right": whole,
        "wrong_pictures_with_a_doubt": doubted_wrong,
        "right_pictures_with_a_doubt": doubted_right,
    }


def draw(images: npt.NDArray[np.uint8], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A picture, uint8 (H, W, 3), with these digits, uint8 (N, 28, 28), side by side.

    Neighbours are 8 to 60% of a digit's height apart, up to 10% higher or lower and 10% smaller or larger.
    """
    height = random.uniform(18, 220)  # of a digit's ink, in pixels
    cut = [_turned(image, height * random.uniform(0.9, 1.1), random.uniform(-15, 15)) for image in images]
    gaps = [round(height * random.uniform(0.08, 0.6)) for _ in cut]
    content_width = sum(one.shape[1] for one in cut) + sum(gaps[1:])
    content_height = round(max(one.shape[0] for one in cut) + 0.1 * height)
    width = round(content_width + height * random.uniform(0.3, 3))
    tall = round(content_height + height * random.uniform(0.3, 3))
    drawn = np.zeros((tall, width))
    x = int(random.integers(0, width - content_width + 1))
    y = int(random.integers(0, tall - content_height + 1))
    for one, gap in zip(cut, [*gaps[1:], 0], strict=True):
        top = y + int(random.integers(0, content_height - one.shape[0] + 1))
        drawn[top : top + one.shape[0], x : x + one.shape[1]] = one
        x += one.shape[1] + gap
    ink, paper = _colours(random)
    canvas = paper + drawn[..., None] * (ink - paper)
    angle, depth = random.uniform(0, 2 * np.pi), random.uniform(0, 0.45)
    ramp = np.linspace(-0.5, 0.5, tall)[:, None] * np.sin(angle) + np.linspace(-0.5, 0.5, width) * np.cos(angle)
    canvas *= (1 - depth * (ramp - ramp.min()) / (np.ptp(ramp) or 1))[..., None]
    canvas += random.normal(0, random.uniform(0, 10), canvas.shape)
    return canvas.clip(0, 255).astype(np.uint8)


def as_jpeg(pixels: npt.NDArray[np.uint8], random: np.random.Generator) -> bytes:
    """A JPEG file of quality 40 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(random.integers(40, 96)))
    return buffer.getvalue()


def _turned(image: npt.NDArray[np.uint8], height: float, angle: float) -> npt.NDArray[np.float64]:
    """A digit as a share of ink, 0 … 1, larger, rotated, and cut to its ink."""
    scale = height / 20
    side = round(28 * scale)
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    ink = np.asarray(large.rotate(angle, Image.Resampling.BICUBIC), dtype=np.float64) / 255
    rows, columns = np.flatnonzero((ink > 0.1).any(axis=1)), np.flatnonzero((ink > 0.1).any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _colours(random: np.random.Generator) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Ink and paper, RGB 0 … 255; the paper is the lighter one in three of four pictures."""
    while True:
        first, second = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
        difference = float((second - first) @ BRIGHTNESS)
        if abs(difference) >= LEAST_CONTRAST:
            paper_is_light = bool(random.random() < 0.75)
            return (first, second) if (difference > 0) == paper_is_light else (second, first)


if __name__ == "__main__":
    main()
