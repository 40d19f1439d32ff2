"""Ink brought to MNIST's convention: white on black, fitted into 20×20 pixels, centre of mass in the middle of 28×28.

LeCun, Cortes, Burges: http://yann.lecun.com/exdb/mnist/ ("the digits were size normalized to fit in a 20x20 pixel box
while preserving their aspect ratio … centered in a 28x28 image by computing the center of mass").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

SIDE, BOX = 28, 20
MIDDLE = 14.5
"""Where MNIST's centres of mass are, by pixels' edges: between 14 and 15, so half a pixel beyond the middle."""
THINNEST, THICKEST = 1.7, 4.2
"""Pixels of the 20×20 box. MNIST's strokes: 2.5 on average, 1.7 to 3.9 in 90% of the digits. Others are redrawn."""
MARGIN = 0.5
"""By which a redrawn stroke is within these limits."""
FINE = 4
"""Times finer than MNIST's pixels: where strokes are made thicker or thinner."""


def is_conventional(pixels: npt.NDArray[np.uint8]) -> bool:
    """Whether a picture, uint8 (28, 28), is in the convention already and to be taken as it is."""
    if pixels.shape != (SIDE, SIDE):
        return False
    edges = np.concatenate([pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()])
    if edges.max() > 0:
        return False
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return False
    longest = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    y, x = _centre_of_mass(pixels)
    return bool(abs(longest - BOX) <= 1 and abs(y - MIDDLE) <= 1 and abs(x - MIDDLE) <= 1)


def stroke_width(ink: npt.NDArray[np.bool_]) -> float:
    """The mean width of strokes in pixels: twice the area by the outline's length."""
    padded = np.zeros((ink.shape[0] + 2, ink.shape[1] + 2), dtype=np.bool_)
    padded[1:-1, 1:-1] = ink
    edges = np.count_nonzero(padded[1:] != padded[:-1]) + np.count_nonzero(padded[:, 1:] != padded[:, :-1])
    return 2 * float(np.count_nonzero(ink)) / max(1.0, edges * np.pi / 4)


def to_mnist(ink: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """What the network sees of a digit.

    Args:
        ink: uint8 (H, W), 0 where nothing is drawn, the digit's box.

    Returns:
        uint8 (28, 28).
    """
    level = _usual(ink)
    mask = ink >= level // 2
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    ink, mask = ink[top:bottom, left:right], mask[top:bottom, left:right]
    width = stroke_width(mask) * BOX / max(mask.shape)
    if THINNEST <= width <= THICKEST:
        contrast = np.clip((np.arange(256) - 0.1 * level) * (255 / (0.8 * level)), 0, 255).astype(np.uint8)
        small = _fit(contrast[ink], BOX)
    else:
        small = _redrawn(ink, level, width)
    y, x = _centre_of_mass(small)
    result = np.zeros((SIDE, SIDE), dtype=np.uint8)
    height, width_ = small.shape
    row = min(max(0, round(MIDDLE - y)), SIDE - height)
    column = min(max(0, round(MIDDLE - x)), SIDE - width_)
    result[row : row + height, column : column + width_] = small
    return result


def _redrawn(ink: npt.NDArray[np.uint8], level: int, width: float) -> npt.NDArray[np.uint8]:
    """The digit with a pen of MNIST's width: by the distance from its strokes' edges, on a finer grid."""
    target = min(max(width, THINNEST + MARGIN), THICKEST - MARGIN)
    grow = (target - width) / 2 * FINE  # outwards on each side
    margin = max(0.0, grow)
    fine = _fit(ink, round(BOX * FINE - 2 * margin))
    pad = int(np.ceil(margin)) + 1
    drawn = np.pad(fine >= level / 2, pad)
    if not drawn.any():  # strokes so thin that they vanished
        drawn = np.pad(fine >= fine.max() / 2, pad)
    outside = ndimage.distance_transform_edt(~drawn)
    inside = ndimage.distance_transform_edt(drawn)
    distance = outside - inside + np.where(drawn, 0.5, -0.5)
    if grow < 0:  # not thinner than leaves something of the thinnest strokes
        grow = max(grow, -0.6 * float(np.percentile(inside[drawn], 90)))
    soft = np.clip(0.5 + grow - distance, 0, 1) * 255
    redrawn = soft.astype(np.uint8)
    rows, columns = np.flatnonzero(redrawn.any(axis=1)), np.flatnonzero(redrawn.any(axis=0))
    return _fit(redrawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], BOX)


def _fit(values: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    """Scaled so that the longer side is `side`."""
    height, width = values.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BICUBIC))


def _usual(ink: npt.NDArray[np.uint8]) -> int:
    """The strength of most of a digit's ink, 1 … 255: below it are the soft edges."""
    counts = np.bincount(ink.ravel(), minlength=256)
    counts[0] = 0
    total = np.cumsum(counts)
    return max(1, int(np.searchsorted(total, 0.75 * total[-1])))


def _centre_of_mass(values: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """Row and column, of pixels' edges: the middle of one pixel is 0.5."""
    rows, columns = values.sum(axis=1, dtype=np.float64), values.sum(axis=0, dtype=np.float64)
    total = rows.sum()
    height, width = values.shape
    return float(rows @ np.arange(height) / total) + 0.5, float(columns @ np.arange(width) / total) + 0.5
