"""Brings a digit to MNIST's form: white on black, scaled into 20×20 pixels, centre of mass in the middle of 28×28.

Source: LeCun, Cortes, Burges, http://yann.lecun.com/exdb/mnist/ ("size normalized to fit in a 20x20 pixel box while
preserving their aspect ratio … centered in a 28x28 image by computing the center of mass").
"""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Ink = npt.NDArray[np.uint8]

SIDE, BOX = 28, 20
MIDDLE = 14.5  # row and column of MNIST's centres of mass, counted from the edge of the image
THINNEST, THICKEST = 1.7, 4.2  # pixels of the 20×20 box; others are redrawn. 90% of MNIST's strokes have 1.7 to 3.9.
FINE = 4  # strokes are redrawn on a grid this many times finer than MNIST's


def is_conventional(pixels: Ink) -> bool:
    """Whether a picture, uint8 (H, W) or (H, W, 3), is in MNIST's form already and is used unchanged."""
    if pixels.shape != (SIDE, SIDE) or not pixels.any():
        return False
    longest = max(cv2.boundingRect(pixels)[2:])
    return abs(longest - BOX) <= 1 and all(abs(centre - MIDDLE) <= 1 for centre in _centre(pixels))


def stroke_width(ink: npt.NDArray[np.bool_]) -> float:
    """The mean width of strokes in pixels: twice the area divided by the length of the outline."""
    padded = np.pad(ink, 1)
    edges = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    return 2 * float(np.count_nonzero(ink)) / max(1.0, edges * np.pi / 4)


def to_mnist(ink: Ink) -> Ink:
    """One digit, uint8 (H, W), 0 where nothing is drawn, in MNIST's form, uint8 (28, 28)."""
    level = int(np.quantile(ink[ink > 0], 0.75))  # of most of the ink; soft edges are below
    mask = ink >= level // 2
    box = _box(mask)
    ink, mask = ink[box], mask[box]
    width = stroke_width(mask) * BOX / max(mask.shape)
    if THINNEST <= width <= THICKEST:
        contrast = np.clip((np.arange(256) - 0.1 * level) * (255 / (0.8 * level)), 0, 255).astype(np.uint8)
        small = _fit(contrast[ink], BOX)
    else:
        small = _redrawn(ink, level, width)
    result = np.zeros((SIDE, SIDE), dtype=np.uint8)
    centres = zip(_centre(small), small.shape, strict=True)
    row, column = (min(max(0, round(MIDDLE - centre)), SIDE - side) for centre, side in centres)
    result[row : row + small.shape[0], column : column + small.shape[1]] = small
    return result


def _redrawn(ink: Ink, level: int, width: float) -> Ink:
    """The digit with strokes of MNIST's width: from each pixel's distance to the edges of strokes, on a finer grid."""
    grow = (min(max(width, THINNEST + 0.5), THICKEST - 0.5) - width) / 2 * FINE  # outwards on each side
    margin = max(0.0, grow)
    fine = _fit(ink, round(BOX * FINE - 2 * margin))
    pad = int(np.ceil(margin)) + 1
    usual = level if fine.max() >= level / 2 else fine.max()  # scaling makes the thinnest strokes fainter
    drawn = np.pad(fine >= usual / 2, pad)
    exact = (cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside, inside = (cv2.distanceTransform(mask.view(np.uint8), *exact) for mask in (~drawn, drawn))
    distance = outside - inside + np.where(drawn, 0.5, -0.5)
    grow = max(grow, -0.6 * float(np.percentile(inside[drawn], 90)))  # the thinnest strokes must not vanish
    redrawn = (np.clip(0.5 + grow - distance, 0, 1) * 255).astype(np.uint8)
    return _fit(redrawn[_box(redrawn > 0)], BOX)


def _centre(ink: Ink) -> tuple[float, float]:
    """Row and column of the centre of mass, counted from the edge of the image."""
    moments = cv2.moments(ink)
    return moments["m01"] / moments["m00"] + 0.5, moments["m10"] / moments["m00"] + 0.5


def _box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and the columns of the rectangle that holds all of a mask."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(top, top + height), slice(left, left + width)


def _fit(values: Ink, side: int) -> Ink:
    """Scaled so that the longer side is `side`."""
    scale = side / max(values.shape)
    height, width = (max(1, round(length * scale)) for length in values.shape)
    return np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC))
