"""Ink told from paper: how strongly each pixel of a picture is drawn on, whatever the light and the colours."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

GRID = 24
"""Points a side at which the light's smooth change over the picture is measured."""
WIDEST_STROKE = 0.45
"""Of the picture's shorter side."""
SMALL = 120
"""Pixels of the shorter side; such a picture holds a digit or a few and little else."""
LEAST_CONTRAST = 14.0
"""Of 255; what stands out less from its surroundings is taken for paper."""
LEAST_CONTRAST_TO_NOISE = 6.0
USUAL = 170
"""Leaves room for ink that is darker than the lines of the paper it is on."""
DARK_SHARE = 24.0
"""Added to the paper's brightness where ink is measured as a share of it, so that black shadows do not become ink."""


def strength(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """How much ink is where, or None on blank paper.

    Paper is what most of the picture is, so white on black works as well. A smooth change of light is fitted by a
    quadratic surface and taken away; what is wider than a stroke (shadows, a table's edge) by a morphological closing.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).

    Returns:
        uint8 (H, W): 0 is paper, `USUAL` the usual strength of what is drawn, ink or printed lines.
    """
    grey, is_brightness = _one_channel(pixels)
    shorter = min(grey.shape)
    if shorter >= 200:
        grey = ndimage.gaussian_filter(grey, 0.8, mode="nearest")
    elif shorter >= 60:
        grey = ndimage.gaussian_filter(grey, 0.6, mode="nearest")
    surface = _smooth_light(grey)
    flat = grey - surface  # around 0 on paper
    light, size = _pen(flat)
    if light:
        grey, surface, flat = -grey, -surface, -flat
        is_brightness = False
    paper = _closing(flat, size) + surface
    ink = paper - grey
    if is_brightness:  # ink swallows a share of the light, in a shadow as well
        ink *= (float(np.median(surface)) + DARK_SHARE) / (np.maximum(paper, 0) + DARK_SHARE)
    levels = np.clip(ink + 0.5, 0, 255).astype(np.uint8)
    counts = np.bincount(levels.ravel(), minlength=256)
    offset = _quantile(counts, 0.5)
    noise = 1.4826 * max(0, offset - _quantile(counts, 0.16)) if offset else 0.0
    least = offset + max(LEAST_CONTRAST, LEAST_CONTRAST_TO_NOISE * noise)
    drawn = counts.copy()
    drawn[: min(256, int(least))] = 0
    if drawn.sum() < max(6, 2e-5 * levels.size):
        return None
    usual = _quantile(drawn, 0.7)
    scale = np.clip((np.arange(256) - offset) * (USUAL / max(1, usual - offset)), 0, 255).astype(np.uint8)
    result: npt.NDArray[np.uint8] = scale[levels]
    return result


def _one_channel(pixels: npt.NDArray[np.uint8]) -> tuple[Floats, bool]:
    """The colour direction along which the picture differs most from its surroundings, and whether it is a brightness.

    For black, blue or pencil on paper that is close to brightness; for red on green of the same brightness it is not.
    """
    if pixels.ndim == 2:
        return pixels.astype(np.float32), True
    colours = pixels.astype(np.float32)
    step = max(1, min(pixels.shape[:2]) // 256)
    sample = ndimage.uniform_filter(colours[::step, ::step], size=(3, 3, 1)) if step > 1 else colours[::step, ::step]
    window = max(3, min(sample.shape[:2]) // 3)
    difference = sample - ndimage.uniform_filter(sample, size=(window, window, 1), mode="nearest")
    difference = difference.reshape(-1, 3)
    directions = np.linalg.eigh(difference.T @ difference)[1]
    weights = directions[:, -1] * np.sign(directions[:, -1].sum() or 1.0)
    is_brightness = bool((weights > -0.05).all())
    weights /= np.abs(weights).sum()
    return colours @ weights.astype(np.float32), is_brightness


@functools.lru_cache(maxsize=16)
def _quadratic(height: int, width: int) -> tuple[Floats, Floats]:
    """1, y, x, y², xy, x² at the grid's points (GRID², 6), and at all rows and columns (H, W, 6)."""

    def terms(y: Floats, x: Floats) -> Floats:
        y, x = np.broadcast_arrays(y[:, None], x[None, :])
        return np.stack([np.ones_like(y), y, x, y * y, x * y, x * x], axis=-1)

    rows, columns = _grid(height, width)
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    everywhere = terms(y, x) if height * width <= 40_000 else np.empty(0, np.float32)
    return terms(y[rows], x[columns]).reshape(-1, 6), everywhere


def _grid(height: int, width: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return (
        np.linspace(0, height - 1, min(height, GRID)).round().astype(np.intp),
        np.linspace(0, width - 1, min(width, GRID)).round().astype(np.intp),
    )


def _smooth_light(grey: Floats) -> Floats:
    """A quadratic surface through the paper: fitted again and again to what is near it."""
    height, width = grey.shape
    terms, everywhere = _quadratic(height, width)
    rows, columns = _grid(height, width)
    values = grey[rows[:, None], columns].ravel()
    weights = np.ones_like(values)
    fit = np.zeros(6, np.float32)
    fit[0] = np.partition(values, len(values) // 2)[len(values) // 2]
    weights = (np.abs(values - fit[0]) < 60).astype(np.float32)
    for _ in range(4):
        weighted = terms * weights[:, None]
        normal = weighted.T @ terms + 0.5 * np.diag([0, 1, 1, 1, 1, 1]).astype(np.float32)
        fit = np.linalg.solve(normal, weighted.T @ values)
        residual = np.abs(values - terms @ fit)
        middle = np.partition(residual, len(residual) // 2)[len(residual) // 2]
        weights = (residual <= 2.5 * middle + 3).astype(np.float32)
    if everywhere.size:
        return np.asarray(everywhere @ fit)
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    return np.asarray(fit[0] + fit[1] * y + fit[3] * y * y + (fit[2] + fit[4] * y) * x + fit[5] * x * x)


def _pen(flat: Floats) -> tuple[bool, int]:
    """Whether strokes are lighter than the paper, and the side of a square that no stroke can hold.

    In small pictures ink is the rare side: brightness about the paper's has its long tail there. In large ones, where
    a table's edge may be seen, strokes are what comes out of a closing (dark ones) or an opening (light ones) with the
    smallest square; with larger ones it gets no stronger.
    """
    shorter = min(flat.shape)
    widest = max(3, round(shorter * WIDEST_STROKE)) | 1
    if shorter < SMALL:
        return float((flat**3).sum()) > 0, widest
    step = max(1, shorter // 400)
    dark, light = flat, -flat
    if step > 1:  # thin strokes stay whole
        dark = ndimage.minimum_filter(flat, size=step, mode="nearest")[::step, ::step]
        light = ndimage.minimum_filter(-flat, size=step, mode="nearest")[::step, ::step]
    widths = np.geomspace(7, max(8, shorter // step * WIDEST_STROKE), 5).round().astype(int) | 1
    rank = max(20, dark.size // 3000)
    inks = [[(_closing(values, int(width)) - values).ravel() for values in (dark, light)] for width in widths]
    strongest = [max(float(np.partition(ink, -rank)[-rank]) for ink in both) for both in inks]
    enough = next(number for number, ink in enumerate(strongest) if ink >= 0.8 * strongest[-1])
    amounts = [float(ink[ink > 0.4 * strongest[enough]].sum()) for ink in inks[enough]]
    return amounts[1] > amounts[0], min(widest, int(3 * widths[enough] * step) | 1)


def _closing(values: Floats, size: int) -> Floats:
    """Dilation, then erosion, by a flat square."""
    grown = ndimage.maximum_filter(values, size=size, mode="nearest")
    closed: Floats = ndimage.minimum_filter(grown, size=size, mode="nearest")
    return closed


def _quantile(counts: npt.NDArray[np.int64], share: float) -> int:
    """The level that this share of the counted pixels does not exceed."""
    total = np.cumsum(counts)
    return int(np.searchsorted(total, share * total[-1]))
