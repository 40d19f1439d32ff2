"""Erases the straight lines of ruled paper, squared paper and forms from a map of ink."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mnist_accel.pictures.ink import quantile

Mask = npt.NDArray[np.bool_]

SMALLEST_SIDE = 100
"""Pixels. In smaller pictures, lines and strokes cannot be told apart."""
THICKEST = 0.02
"""Of the picture's shorter side."""
SHORTEST = 0.5
"""Of the picture's width (height)."""
STEEPEST = 0.1
"""The largest slope of lines, in pixels down for each pixel across."""
BEYOND, BEYOND_AT_EDGE = 0.25, 0.1
"""A line extends beyond all other ink on both sides by this share of the other ink's extent; by less where it reaches
the edge of the picture. The bar or stem of a digit does not."""


def erase(mask: Mask) -> Mask:
    """The mask of ink (H, W) without long straight lines; strokes that cross a line stay complete."""
    thickest = max(4, round(THICKEST * min(mask.shape)))
    across, down = _lines(mask, thickest, SHORTEST), _lines(mask.T, thickest, SHORTEST).T
    lines = across | down
    if not lines.any():
        return mask
    rest = mask & ~ndimage.binary_dilation(lines, structure=np.ones((3, 3)), iterations=3)  # without crossings
    if not rest.any():
        return mask
    result = mask
    # A line under a number is longer than the number is tall.
    if across.any() and (_goes_beyond(across, rest) or _extent(across)[2] >= 1.6 * _extent(rest.T)[2]):
        result = result & ~across
        rows = np.flatnonzero(across.any(axis=1))
        strip = slice(rows[0], rows[-1] + 1)
        if strip.stop - strip.start > 2 * THICKEST * max(mask.shape):  # the sides of a form's boxes
            result[strip] &= ~_lines(mask[strip].T, thickest, 0.85).T
    if down.any() and _goes_beyond(down.T, rest.T):
        result = result & ~down
    return result


def _extent(mask: Mask) -> tuple[int, int, int]:
    """The first and the last column, and their distance; 1% of the pixels may lie outside on each side."""
    counts = mask.sum(axis=0)
    first, last = quantile(counts, 0.01), quantile(counts, 0.99)
    return first, last, last - first + 1


def _goes_beyond(lines: Mask, rest: Mask) -> bool:
    width = lines.shape[1]
    first, last, extent = _extent(rest)
    columns = np.flatnonzero(lines.any(axis=0))
    edge = 0.015 * width
    return bool(
        first - columns[0] >= (BEYOND_AT_EDGE if columns[0] <= edge else BEYOND) * extent
        and columns[-1] - last >= (BEYOND_AT_EDGE if columns[-1] >= width - 1 - edge else BEYOND) * extent
    )


def _lines(mask: Mask, thickest: int, shortest: float) -> Mask:
    """The pixels of roughly horizontal lines: vertical runs of ink that are short, and aligned with many others.

    `thickest` is in pixels, `shortest` a share of the width.
    """
    height, width = mask.shape
    change = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (0, 1))).ravel(), prepend=0)
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    thin = ends - starts <= thickest
    starts, ends = starts[thin], ends[thin]
    x, top = np.divmod(starts, height + 1)
    bottom = top + ends - starts
    middle = (top + bottom - 1) / 2
    found = np.zeros(mask.shape, dtype=np.bool_)
    left = np.ones(len(x), dtype=np.bool_)
    for _ in range(3):
        on_line = _aligned(x[left], middle[left], width, thickest, shortest)
        if not on_line.any():
            break
        chosen = np.flatnonzero(left)[on_line]
        left[chosen] = False
        lengths = bottom[chosen] - top[chosen]
        chosen = chosen[lengths <= np.median(lengths) * 1.5 + 1]  # strokes on the line are thicker and stay
        for offset in range(thickest):
            rows = top[chosen] + offset
            inside = rows < bottom[chosen]
            found[rows[inside], x[chosen][inside]] = True
    return found


def _aligned(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.float64], width: int, tolerance: int, shortest: float
) -> npt.NDArray[np.bool_]:
    """Which points lie on long lines, by a Hough transform. All lines have one slope."""
    step = max(2, tolerance // 2)
    best, best_score = np.zeros(len(x), dtype=np.bool_), 0.0
    three = np.ones(3, dtype=np.int64)  # neighbouring bins are counted together
    for slope in np.linspace(-STEEPEST, STEEPEST, 61):
        bins = np.floor((y - slope * x + STEEPEST * width) / step).astype(np.int64) + 2
        counts = np.convolve(np.bincount(bins, minlength=int(bins.max(initial=0)) + 3), three, "valid")
        is_line = counts >= shortest * width
        score = float((counts[is_line].astype(np.float64) ** 2).sum())
        if score > best_score:
            best, best_score = (np.convolve(is_line, three) > 0)[bins], score
    return best
