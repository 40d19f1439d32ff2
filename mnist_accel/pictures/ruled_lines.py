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
MANY = 4
"""Parallel lines; a digit has up to three."""
BEYOND, BEYOND_AT_EDGE = 0.25, 0.1
"""A line extends beyond all other ink on both sides by this share of the other ink's extent; by less where it reaches
the edge of the picture. The bar or stem of a digit does not."""


def erase(mask: Mask) -> Mask:
    """The mask of ink (H, W) without long straight lines; strokes that cross a line stay complete."""
    thickest = max(4, round(THICKEST * min(mask.shape)))
    across, rows = _lines(mask, thickest, SHORTEST)
    down, columns = _lines(mask.T, thickest, SHORTEST)
    lines = across | down.T
    if not lines.any():
        return mask
    rest = mask & ~ndimage.binary_dilation(lines, structure=np.ones((3, 3)), iterations=3)  # without crossings
    if not rest.any():
        return mask
    result = mask
    # A line under a number is longer than the number is tall.
    if rows and (rows >= MANY or _goes_beyond(across, rest) or _extent(across)[2] >= 1.6 * _extent(rest.T)[2]):
        result = result & ~across
        result &= ~_sides(mask, across, thickest)
    if columns and (columns >= MANY or _goes_beyond(down, rest.T)):
        result = result & ~down.T
    return result


def _sides(mask: Mask, across: Mask, thickest: int) -> Mask:
    """The sides of a form's boxes: lines between its first and its last line across, which may be slanted."""
    sides = np.zeros_like(mask)
    columns = np.flatnonzero(across.any(axis=0))
    first, last = across.argmax(axis=0)[columns], across.shape[0] - 1 - across[::-1].argmax(axis=0)[columns]
    height = float(np.median(last - first))
    if height > 2 * THICKEST * max(mask.shape):
        strip = slice(int(first.min()), int(last.max()) + 1)
        sides[strip] = _lines(mask[strip].T, thickest, 0.85 * height / (strip.stop - strip.start))[0].T
    return sides


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


def _lines(mask: Mask, thickest: int, shortest: float) -> tuple[Mask, int]:
    """The pixels of roughly horizontal lines: vertical runs of ink that are short, and aligned with many others.

    Also the number of lines.

    `thickest` is in pixels, `shortest` a share of the width.
    """
    height = len(mask)
    change = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (0, 1))).ravel(), prepend=0)
    starts, ends = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    lengths = ends - starts
    if (short := lengths <= thickest).any():
        thickest = min(thickest, max(4, 3 * int(np.median(lengths[short]))))
    thin = lengths <= thickest
    starts, ends = starts[thin], ends[thin]
    x, top = np.divmod(starts, height + 1)
    bottom = top + ends - starts
    middle = (top + bottom - 1) / 2
    found = np.zeros(mask.shape, dtype=np.bool_)
    left = np.ones(len(x), dtype=np.bool_)
    number = 0
    for _ in range(3):
        on_line, lines = _aligned(x[left], middle[left], mask.shape, thickest, shortest)
        if not on_line.any():
            break
        number += lines
        chosen = np.flatnonzero(left)[on_line]
        left[chosen] = False
        lengths = bottom[chosen] - top[chosen]
        chosen = chosen[lengths <= np.median(lengths) * 1.5 + 1]  # strokes on the line are thicker and stay
        for offset in range(thickest):
            rows = top[chosen] + offset
            inside = rows < bottom[chosen]
            found[rows[inside], x[chosen][inside]] = True
    return found, number


def _aligned(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.float64], shape: tuple[int, ...], tolerance: int, shortest: float
) -> tuple[npt.NDArray[np.bool_], int]:
    """Which points lie on long lines, and the number of lines, by a Hough transform. All lines have one slope."""
    (height, width), step = shape, max(2, tolerance // 2)
    best, number, best_score = np.zeros(len(x), dtype=np.bool_), 0, 0.0
    three = np.ones(3, dtype=np.int64)  # neighbouring bins are counted together
    for slope in np.linspace(-STEEPEST, STEEPEST, 61):
        bins = np.floor((y - slope * x + STEEPEST * width) / step).astype(np.int64) + 2
        counts = np.convolve(np.bincount(bins, minlength=int(bins.max(initial=0)) + 3), three, "valid")
        is_line = counts >= shortest * width
        if np.count_nonzero(is_line) >= MANY:  # then also lines that cut off a corner of the picture
            start = (np.arange(len(counts)) - 0.5) * step - STEEPEST * width  # at x = 0
            ends = np.sort(np.stack([-start, height - start]) / (slope or 1e-9), axis=0).clip(0, width)
            is_line |= counts >= np.maximum(0.6 * (ends[1] - ends[0]), max(3 * tolerance, 0.05 * width))
        score = float((counts[is_line].astype(np.float64) ** 2).sum())
        if score > best_score:
            number = int(np.count_nonzero(np.diff(is_line.astype(np.int8), prepend=0) == 1))
            best, best_score = (np.convolve(is_line, three) > 0)[bins], score
    return best, number
