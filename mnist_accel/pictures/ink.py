"""Separates ink from paper: measures how strongly each pixel is drawn on, whatever the light and the colours."""

import functools
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mnist_accel.pictures.picture_file import NothingFoundError

Floats = npt.NDArray[np.float32]

RIDGE = np.diag([0, 1, 1, 1, 1, 1]).astype(np.float32) / 2
"""Keeps the fitted surface of the light flat where few points lie on it."""
WIDEST_STROKE = 0.45
"""As a share of the picture's shorter side."""
SMALL = 120
"""Pixels. A picture with a shorter side below this holds one digit or a few, and little else."""
USUAL = 170
"""The strength of the usual ink, of 255; ink that is darker than the printed lines of the paper has room above."""
NO_SURFACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
FILLED = 64
"""Pixels; a picture that one digit fills is reduced to it."""
SHARP, FAINTEST = 0.15, 16.0
"""The mean step of brightness over the border of such a digit, of its contrast; and the least contrast, of 255."""
DARK_SHARE = 24.0
"""Added to the paper's brightness before dividing by it, so that noise in black shadows does not become ink."""


def strength(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Measure the ink of a picture.

    Most of a picture is paper; therefore white on black works as well. A smooth change of light is removed by fitting
    a quadratic surface, and shadows or table edges, which are wider than a stroke, by a morphological closing.

    Args:
        pixels: uint8 (H, W) or (H, W, 3).

    Returns:
        uint8 (H, W): 0 for paper, `USUAL` for the usual strength of ink and printed lines.

    Raises:
        NothingFoundError: no ink stands out from the paper.
    """
    levels, noise = _difference_from_paper(pixels)
    counts = np.bincount(levels.ravel(), minlength=256)
    offset = quantile(counts, 0.5)
    noise = max(noise, 1.4826 * max(0, offset - quantile(counts, 0.16)) if offset else 0.0)
    counts[: int(offset + max(14.0, 6.0 * noise))] = 0  # a pixel that differs less from its surroundings is paper
    if counts.sum() < max(6, 2e-5 * levels.size):
        raise NothingFoundError("blank: no ink stands out from the paper")
    usual = quantile(counts, 0.7)
    scale = np.clip((np.arange(256) - offset) * (USUAL / max(1, usual - offset)), 0, 255).astype(np.uint8)
    return np.take(scale, levels)


def of_one_digit(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """The ink, uint8 (H, W), of a picture that one digit fills: two levels, of which the paper has more of the edge.

    None if the levels do not have a sharp, short border, as in blank, textured and unevenly lit pictures.
    """
    grey = _one_channel(pixels)[0]
    scale = min(1.0, max(FILLED / max(grey.shape), FILLED / 4 / min(grey.shape)))
    grey = np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.float32)
    low, high = np.quantile(grey, (0.02, 0.98))
    levels = ((grey - low) * (255 / max(high - low, 1e-6))).clip(0, 255).astype(np.uint8)
    _, light = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
    edge = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    if 2 * np.count_nonzero(edge) > len(edge):
        levels, light = np.bitwise_not(levels), 1 - light
    steps = [np.abs(np.diff(levels.astype(np.float32), axis=axis))[np.diff(light, axis=axis) != 0] for axis in (0, 1)]
    border = np.concatenate(steps)
    is_sharp = len(border) and border.mean() > 255 * max(SHARP, 3 / min(grey.shape)) and len(border) < 0.4 * light.size
    rows, columns = np.flatnonzero(light.any(axis=1)), np.flatnonzero(light.any(axis=0))
    if (
        not is_sharp
        or high - low < FAINTEST
        or max(np.ptp(rows) / light.shape[0], np.ptp(columns) / light.shape[1]) < 0.5
    ):
        return None
    return np.asarray(levels, dtype=np.uint8)


def _difference_from_paper(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float]:
    """How much each pixel differs from the paper in the direction of ink, uint8 (H, W); a small picture's noise."""
    grey, is_brightness = _one_channel(pixels)
    noise = 0.0
    if min(grey.shape) >= SMALL:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
    else:  # Immerkær, Fast noise variance estimation, 1996; 4.05 is 6 × the median of a normal distribution's |x|
        noise = float(np.median(np.abs(cv2.filter2D(grey, -1, NO_SURFACE)))) / 4.05
    surface, is_paper = _smooth_light(grey)
    flat = grey - surface  # about 0 on paper
    is_light, size = _pen(flat)
    if is_light:
        grey, surface, flat = -grey, -surface, -flat
        is_brightness = False
    paper = surface if is_paper else _closing(flat, size) + surface
    ink = paper - grey
    if is_brightness:  # ink absorbs a share of the light, in shadows too
        gain = (float(surface.mean()) + DARK_SHARE) / (np.maximum(paper, 0) + DARK_SHARE)
        ink *= gain
        noise *= float(gain.max())
    return np.asarray(np.clip(ink + 0.5, 0, 255), dtype=np.uint8), noise


def _one_channel(pixels: npt.NDArray[np.uint8]) -> tuple[Floats, bool]:
    """The picture along the colour direction that differs most from its surroundings, and whether it is a brightness.

    For black, blue or pencil on white paper this is close to brightness; for red on equally bright green it is not.
    """
    if pixels.ndim == 2:
        return pixels.astype(np.float32), True
    colours = pixels.astype(np.float32)
    step = max(1, min(pixels.shape[:2]) // 256)
    sample = ndimage.uniform_filter(colours[::step, ::step], size=(3, 3, 1)) if step > 1 else colours[::step, ::step]
    window = max(3, min(sample.shape[:2]) // 3)
    difference = (sample - ndimage.uniform_filter(sample, size=(window, window, 1), mode="nearest")).reshape(-1, 3)
    directions = np.linalg.eigh(difference.T @ difference)[1]
    weights = directions[:, -1] * np.sign(directions[:, -1].sum() or 1.0)
    is_brightness = bool((weights > -0.05).all())
    weights /= np.abs(weights).sum()
    return colours @ weights.astype(np.float32), is_brightness


@functools.lru_cache(maxsize=16)
def _quadratic(height: int, width: int) -> tuple[tuple[Any, Any], Floats, Floats, Floats]:
    """The terms 1, y, x, y², xy, x² for a picture of this size, whose light is measured at up to 16 × 16 points.

    The index of the points; the terms there (points, 6); (1, y, y²) of all rows (H, 3); (1, x, x²) of columns (3, W).
    """
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    rows, columns = (np.linspace(0, side - 1, min(side, 16)).round().astype(np.intp) for side in (height, width))
    grid_y, grid_x = (part.ravel() for part in np.meshgrid(y[rows], x[columns], indexing="ij"))
    terms = np.stack([np.ones_like(grid_y), grid_y, grid_x, grid_y**2, grid_x * grid_y, grid_x**2], axis=-1)
    of_rows, of_columns = np.stack([np.ones_like(y), y, y * y], axis=1), np.stack([np.ones_like(x), x, x * x])
    return (rows[:, None], columns), terms, of_rows, of_columns


def _smooth_light(grey: Floats) -> tuple[Floats, bool]:
    """A quadratic surface fitted to the paper (H, W); each fit uses the points near the surface of the last one.

    Also whether it can serve as the paper's brightness: in a small picture, when most points lie on it.
    """
    grid, terms, of_rows, of_columns = _quadratic(*grey.shape)
    values = grey[grid].ravel()
    middle = len(values) // 2
    near = np.abs(values - np.partition(values, middle)[middle]) < 60
    for _ in range(3):
        weighted = (terms * near[:, None]).T
        fit = np.linalg.solve(weighted @ terms + RIDGE, weighted @ values)
        residual = np.abs(values - terms @ fit)
        near = residual <= 2.5 * np.partition(residual, middle)[middle] + 3
    one, y, x, yy, xy, xx = fit
    factors = np.array([[one, x, xx], [y, xy, 0], [yy, 0, 0]], dtype=np.float32)
    surface = np.asarray(of_rows @ factors @ of_columns, dtype=np.float32)
    return surface, min(grey.shape) < SMALL and float(near.mean()) > 0.6


def _pen(flat: Floats) -> tuple[bool, int]:
    """Whether strokes are lighter than the paper, and the side in pixels of a square wider than each stroke.

    Ink is the rarer side: the distribution of brightness has its long tail there. In a large picture, which may show
    the edge of a table, only the part with strokes is examined.
    """
    shorter = min(flat.shape)
    widest = max(3, round(shorter * WIDEST_STROKE)) | 1
    if shorter < SMALL:
        return float(np.vdot(flat * flat, flat)) > 0, widest
    step = max(1, shorter // 400)
    dark, light = flat, -flat
    if step > 1:  # a minimum over each step keeps thin strokes
        dark = ndimage.minimum_filter(flat, size=step, mode="nearest")[::step, ::step]
        light = ndimage.minimum_filter(-flat, size=step, mode="nearest")[::step, ::step]
    widths = np.geomspace(7, max(8, shorter // step * WIDEST_STROKE), 5).round().astype(int) | 1
    darks = [_closing(dark, int(width)) - dark for width in widths]
    lights = [_closing(light, int(width)) - light for width in widths]
    number, strongest, where = _stroke_area(darks, lights)
    part = flat[::step, ::step][where]
    local = part - ndimage.uniform_filter(part, size=2 * min(part.shape), mode="nearest")
    is_light = float(np.vdot(local * local, local)) > 0
    areas = [np.count_nonzero(ink[where] > 0.7 * strongest) for ink in (lights if is_light else darks)]
    while number + 1 < len(widths) and areas[number + 1] > 1.3 * areas[number]:  # so far only corners of thick strokes
        number += 1
    return is_light, min(widest, int(3 * widths[number] * step) | 1)


def _stroke_area(darks: list[Floats], lights: list[Floats]) -> tuple[int, float, tuple[slice, slice]]:
    """The index of the first size from which on strokes get hardly stronger, their strength, rows and columns.

    `darks` is removed by closings with squares of growing size; `lights` is the same for the negative picture.
    """
    both = [np.maximum(dark, light) for dark, light in zip(darks, lights, strict=True)]
    rank = max(20, both[0].size // 3000)
    strongest = [float(np.partition(ink.ravel(), -rank)[-rank]) for ink in both]
    number = next(number for number, ink in enumerate(strongest) if ink >= 0.8 * strongest[-1])
    strokes = both[number] > 0.4 * strongest[number]
    places = []
    for axis, length in enumerate(strokes.shape):
        counts = strokes.sum(axis=1 - axis)
        first, last = quantile(counts, 0.05), quantile(counts, 0.95)
        margin = max(8, 0.5 * (last - first))
        places.append(slice(max(0, int(first - margin)), min(length, int(last + margin) + 1)))
    return number, strongest[number], (places[0], places[1])


def _closing(values: Floats, size: int) -> Floats:
    return np.asarray(cv2.morphologyEx(values, cv2.MORPH_CLOSE, np.ones((size, size), np.uint8)))


def quantile(counts: npt.NDArray[np.int64], share: float) -> int:
    """The lowest index up to which there is at least this share of all that is counted."""
    total = np.cumsum(counts)
    return int(np.searchsorted(total, share * total[-1]))
