"""Ink told from paper: how strongly each pixel of a picture is drawn on, whatever the light and the colours."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

GRID = 16
"""Points a side at which the light's smooth change over the picture is measured."""
FITS, FAR = 3, 60.0
"""The surface is fitted so often, first to what is within `FAR` of the median brightness."""
RIDGE = np.diag([0, 1, 1, 1, 1, 1]).astype(np.float32) / 2
MOSTLY = 0.6
"""Share of a small picture's points that lie on the surface where it is the paper's brightness."""
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
    if min(grey.shape) >= SMALL:
        grey = ndimage.gaussian_filter(grey, 0.8, mode="nearest")
    surface, is_simple = _smooth_light(grey)
    flat = grey - surface  # around 0 on paper
    light, size = _pen(flat)
    if light:
        grey, surface, flat = -grey, -surface, -flat
        is_brightness = False
    paper = surface if is_simple else _closing(flat, size) + surface
    ink = paper - grey
    if is_brightness:  # ink swallows a share of the light, in a shadow as well
        ink *= (float(surface.mean()) + DARK_SHARE) / (np.maximum(paper, 0) + DARK_SHARE)
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
def _quadratic(height: int, width: int) -> tuple[tuple[Any, Any], Floats, Floats, Floats]:
    """1, y, x, y², xy, x² of a picture of this size.

    Returns:
        The grid's rows and columns as an index; the terms at its points (GRID², 6); the factors of all rows (H, 3) and
        of all columns (3, W).
    """
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    rows = np.linspace(0, height - 1, min(height, GRID)).round().astype(np.intp)
    columns = np.linspace(0, width - 1, min(width, GRID)).round().astype(np.intp)
    grid_y, grid_x = (part.ravel() for part in np.meshgrid(y[rows], x[columns], indexing="ij"))
    terms = np.stack([np.ones_like(grid_y), grid_y, grid_x, grid_y**2, grid_x * grid_y, grid_x**2], axis=-1)
    of_rows, of_columns = np.stack([np.ones_like(y), y, y * y], axis=1), np.stack([np.ones_like(x), x, x * x])
    return (rows[:, None], columns), terms, of_rows, of_columns


def _smooth_light(grey: Floats) -> tuple[Floats, bool]:
    """A quadratic surface through the paper: fitted again and again to what is near it.

    Returns:
        The surface (H, W); and whether it is the paper's brightness in a small picture, as most of it lies on it.
    """
    grid, terms, of_rows, of_columns = _quadratic(*grey.shape)
    values = grey[grid].ravel()
    middle = len(values) // 2
    near = np.abs(values - np.partition(values, middle)[middle]) < FAR
    for _ in range(FITS):
        weighted = (terms * near[:, None]).T
        fit = np.linalg.solve(weighted @ terms + RIDGE, weighted @ values)
        residual = np.abs(values - terms @ fit)
        near = residual <= 2.5 * np.partition(residual, middle)[middle] + 3
    one, y, x, yy, xy, xx = fit
    factors = np.array([[one, x, xx], [y, xy, 0], [yy, 0, 0]], dtype=np.float32)
    surface: Floats = np.asarray(of_rows @ factors @ of_columns, dtype=np.float32)
    return surface, min(grey.shape) < SMALL and float(near.mean()) > MOSTLY


def _pen(flat: Floats) -> tuple[bool, int]:
    """Whether strokes are lighter than the paper, and the side of a square that no stroke can hold.

    Ink is the rare side: brightness about the paper's has its long tail there. In a large picture, where a table's edge
    may be seen, this is asked of the part with strokes alone. They are what comes out of a closing (dark ones) or an
    opening (light ones) with the smallest square from which on it gets no stronger.
    """
    shorter = min(flat.shape)
    widest = max(3, round(shorter * WIDEST_STROKE)) | 1
    if shorter < SMALL:
        return float(np.vdot(flat * flat, flat)) > 0, widest
    step = max(1, shorter // 400)
    dark, light = flat, -flat
    if step > 1:  # thin strokes stay whole
        dark = ndimage.minimum_filter(flat, size=step, mode="nearest")[::step, ::step]
        light = ndimage.minimum_filter(-flat, size=step, mode="nearest")[::step, ::step]
    widths = np.geomspace(7, max(8, shorter // step * WIDEST_STROKE), 5).round().astype(int) | 1
    rank = max(20, dark.size // 3000)
    darks = [_closing(dark, int(width)) - dark for width in widths]
    lights = [_closing(light, int(width)) - light for width in widths]
    strongest = [
        float(np.partition(np.maximum(*both).ravel(), -rank)[-rank]) for both in zip(darks, lights, strict=True)
    ]
    number = next(number for number, ink in enumerate(strongest) if ink >= 0.8 * strongest[-1])
    where = _where(np.maximum(darks[number], lights[number]) > 0.4 * strongest[number])
    part = flat[::step, ::step][where]
    local = part - ndimage.uniform_filter(part, size=2 * min(part.shape), mode="nearest")  # from its edges mostly
    is_light = float(np.vdot(local * local, local)) > 0
    areas = [np.count_nonzero(ink[where] > 0.7 * strongest[number]) for ink in (lights if is_light else darks)]
    while number + 1 < len(widths) and areas[number + 1] > 1.3 * areas[number]:  # so far corners of thick strokes
        number += 1
    return is_light, min(widest, int(3 * widths[number] * step) | 1)


def _where(strokes: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and columns of most of the strokes, and a margin."""
    places = []
    for axis, length in enumerate(strokes.shape):
        total = np.cumsum(strokes.sum(axis=1 - axis))
        first, last = np.searchsorted(total, (0.05 * total[-1], 0.95 * total[-1]))
        margin = max(8, 0.5 * (last - first))
        places.append(slice(max(0, int(first - margin)), min(length, int(last + margin) + 1)))
    return places[0], places[1]


def _closing(values: Floats, size: int) -> Floats:
    """Dilation, then erosion, by a flat square."""
    grown = ndimage.maximum_filter(values, size=size, mode="nearest")
    closed: Floats = ndimage.minimum_filter(grown, size=size, mode="nearest")
    return closed


def _quantile(counts: npt.NDArray[np.int64], share: float) -> int:
    """The level that this share of the counted pixels does not exceed."""
    total = np.cumsum(counts)
    return int(np.searchsorted(total, share * total[-1]))
