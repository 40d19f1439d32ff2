"""Trains the network that tells digits from everything else, and writes mnist_accel/pictures/rejection.safetensors.

Digits: MNIST's training digits, as they are and as a pen of any width or a coarse scan would give them; printed digits.
Others: letters, fragments of digits, digits that touch, lines and boxes, digits with lines through them, scribbles,
blots and textures. All go through `mnist_form.to_mnist`, as in `predict`. Ten minutes on two cores.

python -m scripts.train_rejection
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from scipy import ndimage
from torch import nn

from mnist_accel.data import datasets as data
from mnist_accel.pictures import mnist_form, rejection
from scripts import picture_scenes as scenes
from scripts.picture_scenes import Floats, Pixels, Source

BATCH = 256


def main() -> None:
    """Draw, train, measure on digits and fonts that were not drawn before, and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=rejection.WEIGHTS)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    mnist = data.load("mnist", Path("data"), lambda *_: None)
    train = Source(mnist.train.images, mnist.train.labels, scenes.CHOSEN_FONTS, options.seed)
    test = Source(mnist.test.images[5000:], mnist.test.labels[5000:], scenes.OTHER_FONTS, options.seed + 1)
    images, labels, _ = drawn(train, options.images)
    model = fit(images, labels, options.epochs)
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file(state, options.output)
    images, labels, kinds = drawn(test, 6000)
    rejection.trained.cache_clear()
    sure = rejection.digit_probability(images)
    for kind in dict.fromkeys(kinds):
        chosen = sure[[one == kind for one in kinds]]
        print(json.dumps({"kind": kind, "images": len(chosen), "below 0.5": round(float((chosen < 0.5).mean()), 4)}))


def drawn(source: Source, count: int) -> tuple[Pixels, npt.NDArray[np.float32], list[str]]:
    """Images uint8 (N, 28, 28), 1 for digits and 0 for others (N,), and the kinds."""
    images, labels, kinds = [], [], []
    makers = [(maker, 1, share) for maker, share in DIGITS.items()] + [
        (maker, 0, share) for maker, share in OTHERS.items()
    ]
    shares = np.array([share for _, _, share in makers])
    for number in source.random.choice(len(makers), count, p=shares / shares.sum()):
        maker, is_digit, _ = makers[number]
        ink = maker(source)
        image = ink if maker is as_it_is else mnist_form.to_mnist((ink.clip(0, 1) * 255).astype(np.uint8))
        images.append(image)
        labels.append(is_digit)
        kinds.append(maker.__name__)
    return np.stack(images), np.array(labels, dtype=np.float32), kinds


def fit(images: Pixels, labels: npt.NDArray[np.float32], epochs: int) -> nn.Module:
    """The trained network."""
    model = rejection.network()
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    pixels, targets = torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).unsqueeze(1)
    for epoch in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(pixels))[: len(pixels) // BATCH * BATCH].split(BATCH):
            shifted = torch.roll(pixels[batch], tuple(np.random.default_rng(int(batch[0])).integers(-1, 2, 2)), (2, 3))
            loss = nn.functional.binary_cross_entropy_with_logits(model(shifted / 255), targets[batch] * 0.98 + 0.01)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * BATCH / len(pixels)
        print(f"epoch {epoch + 1}: loss {total:.4f}", flush=True)
    return model.eval()


def as_it_is(source: Source) -> Pixels:
    """A digit of MNIST."""
    image: Pixels = source.images[source.random.integers(len(source.images))]
    return image


def by_a_pen(source: Source) -> Floats:
    """A digit as a pen of any width would draw it."""
    return of_any_width(source.digit(source.between(20, 90), 15)[0], source)


def coarse(source: Source) -> Floats:
    """A digit of few grey pixels, enlarged."""
    pixels, _ = scenes.soft(int(source.between(28, 90)))(source)
    ink = pixels.astype(np.float64) / 255
    return scenes.cut(1 - ink if ink[0, 0] > 0.5 else ink)


def printed_digit(source: Source) -> Floats:
    """A printed digit, slanted and bent."""
    ink = source.printed(str(source.random.integers(10)), source.between(25, 80))
    return of_any_width(scenes.bent(ink, source) if source.random.random() < 0.7 else ink, source)


def with_gaps(source: Source) -> Floats:
    """A digit from which a thin line was erased, as from ruled paper, or with a little dirt beside it."""
    ink = by_a_pen(source)
    height, width = ink.shape
    thin = max(1, round(height * source.between(0.02, 0.06)))
    if source.random.random() < 0.6:
        place = int(source.random.integers(0, height))
        ink[place : place + thin] *= source.between(0, 0.6)
    else:
        y, x = (int(source.random.integers(0, side)) for side in (height, width))
        ink[y : y + thin, x : x + thin] = 1
    return scenes.cut(ink)


def letter(source: Source) -> Floats:
    """A letter that is no digit, slanted and bent."""
    text = scenes.LETTERS[source.random.integers(len(scenes.LETTERS))]
    return of_any_width(scenes.bent(source.printed(text, source.between(25, 80)), source), source)


def of_any_width(ink: Floats, source: Source) -> Floats:
    """With thinner or thicker strokes."""
    width = mnist_form.stroke_width(ink > 0.5)
    grow = source.between(-0.3, 0.35) * width
    padded = np.pad(ink > 0.5, int(width) + 2)
    inside, outside = ndimage.distance_transform_edt(padded), ndimage.distance_transform_edt(~padded)
    changed = np.clip(0.5 + grow + inside - outside, 0, 1)
    if changed.sum() < 0.3 * ink.sum() or source.random.random() < 0.4:
        return ink
    return scenes.cut(changed)


def fragment(source: Source) -> Floats:
    """A third to two thirds of a digit, cut off by a straight line; not of a 1, whose parts are 1s."""
    while True:
        ink, label = source.digit(source.between(40, 90))
        angle = source.between(0, np.pi)
        y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
        along = np.cos(angle) * x + np.sin(angle) * y
        values = np.sort(along[ink > 0.5])
        place = values[int(source.between(0.25, 0.6) * len(values))]
        part = ink * ((along < place) == (source.random.random() < 0.5))
        box = scenes.cut(part) if (part > 0.1).any() else ink
        if label in "023568" and box.shape[0] < 0.75 * ink.shape[0] and box.shape[0] < 3 * box.shape[1]:
            return box


def several(source: Source) -> Floats:
    """Two or three digits that touch, or nearly."""
    if source.random.random() < 0.7:
        return scenes.joined(source, int(source.random.integers(2, 4)), source.between(30, 80))[0]
    return source.number(2, source.between(30, 80), (0.03, 0.15))[0]


def lines(source: Source) -> Floats:
    """Strokes of a ruler: flat lines, crosses, corners, boxes."""
    side = int(source.between(40, 100))
    image = Image.new("L", (side, side))
    draw, width = ImageDraw.Draw(image), int(source.random.integers(1, 5))
    kind = int(source.random.integers(6))
    a, b, c = (source.between(0.1, 0.9) * side for _ in range(3))
    if kind == 0:  # flat; a steep line is a 1
        draw.line((0, a, side, min(max(a + source.between(-0.6, 0.6) * side, 0), side)), fill=255, width=width)
    elif kind == 1:
        draw.line((0, a, side, b), fill=255, width=width)
        draw.line((a, 0, c, side), fill=255, width=width)
    elif kind == 2:
        draw.rectangle((2, 2, max(a, 12), max(b, 12)), outline=255, width=width)
    elif kind == 3:  # an L, turned to any side
        draw.line((2, 2, 2, b, c, b), fill=255, width=width)
        image = image.rotate(90 * int(source.random.integers(0, 3)))
    elif kind == 4:
        for place in np.arange(a % 15, side, source.between(10, 30)):
            draw.line((0, place, side, place), fill=255, width=width)
            draw.line((place, 0, place, side), fill=255, width=width)
    else:
        draw.line((0, a, side, a), fill=255, width=width)
        draw.line((b, a if c > a else 0, b, side), fill=255, width=width)
    ink = np.asarray(image.rotate(source.between(-4, 4), Image.Resampling.BILINEAR), dtype=np.float64) / 255
    return scenes.cut(ink) if (ink > 0.5).any() else np.ones((9, 30))


def with_lines(source: Source) -> Floats:
    """A digit with a line of the paper or a side of a box that was not erased."""
    ink = by_a_pen(source)
    ink = np.pad(ink, round(0.25 * max(ink.shape)))
    thin = max(1, round(0.04 * ink.shape[0]))
    for _ in range(int(source.random.integers(1, 3))):
        axis = int(source.random.integers(2))
        place = int(source.random.integers(0, ink.shape[axis] - thin))
        ink[(slice(place, place + thin), slice(None)) if axis == 0 else (slice(None), slice(place, place + thin))] = 1
    return ink


def mess(source: Source) -> Floats:
    """Scribbles, blots, textures."""
    if source.random.random() < 0.6:
        return scenes.scribbled(source)
    noise = ndimage.gaussian_filter(source.random.normal(0, 1, (60, 60)), source.between(1, 6))
    return scenes.cut((noise > np.quantile(noise, source.between(0.3, 0.8))).astype(np.float64))


DIGITS: dict[Callable[[Source], npt.NDArray[Any]], float] = {
    as_it_is: 0.25,
    by_a_pen: 0.35,
    coarse: 0.15,
    printed_digit: 0.15,
    with_gaps: 0.1,
}
OTHERS: dict[Callable[[Source], npt.NDArray[Any]], float] = {
    letter: 0.35,
    fragment: 0.15,
    several: 0.2,
    lines: 0.1,
    with_lines: 0.1,
    mess: 0.1,
}

if __name__ == "__main__":
    main()
