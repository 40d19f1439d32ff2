"""Separates ink from paper: measures how strongly each pixel is drawn on, whatever the light and the colours."""

import cv2
import numpy as np
import numpy.typing as npt

from mnist_accel.pictures.picture_file import PictureError

Floats = npt.NDArray[np.float32]

RIDGE = np.diag([0, 1, 1, 1, 1, 1]).astype(np.float32) / 2  # keeps the light's surface flat where few points lie on it
SMALL = 120  # pixels. A picture with a shorter side below this holds one digit or a few, and little else.
USUAL = 170  # the usual ink in bytes; darker ink has room above
TWO_LEVELS = 0.8  # share of the variance that is between ink and paper where a digit fills its picture; a ramp has 0.75
DARK_SHARE = 24.0  # added to the paper's brightness before dividing by it: noise in black shadows is no ink


def strength(pixels: npt.NDArray[np.uint8]) -> Floats:
    """The ink (H, W) of a picture (H, W) or (H, W, 3): 0 for paper, 1 for usual ink. PictureError if there is none."""
    grey, is_brightness = _one_channel(pixels)
    if min(grey.shape) >= SMALL:
        grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE), dtype=np.float32)
    paper = _paper(grey)
    ink = paper - grey
    if np.vdot(ink * ink, ink) < 0:  # ink is rare: the long tail of the distribution is on its side
        ink = -ink
    elif is_brightness:  # ink absorbs a share of the light, in shadows too
        ink *= (float(paper.mean()) + DARK_SHARE) / (np.maximum(paper, 0) + DARK_SHARE)
    some = ink[:: 1 + ink.shape[0] // 512, :: 1 + ink.shape[1] // 512]
    lighter = -some[some < 0]  # than the paper: noise, whose distribution is normal
    noise = float(np.quantile(lighter, 0.75)) / 1.15 if len(lighter) else 0.0
    is_ink = ink > max(14.0, 6.0 * noise)
    if np.count_nonzero(is_ink) < max(6, 2e-5 * ink.size):
        raise PictureError("blank: no ink stands out from the paper")
    usual = float(np.quantile(ink[is_ink], 0.7))
    ink /= usual
    return np.asarray(np.maximum(ink, 0, out=ink))


def in_bytes(strength: Floats) -> npt.NDArray[np.uint8]:
    """A result of `strength` as uint8; usual ink is `USUAL`."""
    return (strength * USUAL).clip(0, 255).astype(np.uint8)


def of_one_digit(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """The ink, uint8 (H, W), of a digit that fills its picture, cut out; None without two levels and a short border."""
    scale = min(1.0, max(64 / max(pixels.shape[:2]), 16 / min(pixels.shape[:2])))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    grey = _one_channel(np.asarray(small, dtype=np.uint8))[0]
    low, high = np.quantile(grey, (0.02, 0.98))
    if high - low < 16:
        return None
    levels = ((grey - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    _, light = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
    edge = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]])
    if 2 * np.count_nonzero(edge) > len(edge):  # the paper has more of the picture's edge
        levels, light = np.bitwise_not(levels), 1 - light
    border = sum(np.count_nonzero(np.diff(light, axis=axis)) for axis in (0, 1))
    share, step = float(light.mean()), float(levels[light == 1].mean() - levels[light == 0].mean())
    is_drawn = share * (1 - share) * step**2 > TWO_LEVELS * levels.var() and border < 0.4 * light.size
    left, top, width, height = cv2.boundingRect(light)
    if not is_drawn or max(height / light.shape[0], width / light.shape[1]) < 0.5:
        return None
    return np.asarray(levels[max(0, top - 1) : top + height + 1, max(0, left - 1) : left + width + 1], dtype=np.uint8)


def _one_channel(pixels: npt.NDArray[np.uint8]) -> tuple[Floats, bool]:
    """The picture along the colour direction that differs most from the surroundings; whether this is a brightness."""
    if pixels.ndim == 2:
        return pixels.astype(np.float32), True
    scale = min(1.0, 300 / min(pixels.shape[:2]))
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)
    window = max(3, min(small.shape[:2]) // 3)
    difference = (small - cv2.blur(small, (window, window), borderType=cv2.BORDER_REPLICATE)).reshape(-1, 3)
    directions = np.linalg.eigh(difference.T @ difference)[1]
    weights = directions[:, -1] * np.sign(directions[:, -1].sum() or 1.0)
    return pixels @ (weights / np.abs(weights).sum()).astype(np.float32), bool((weights > -0.05).all())


def quadratic(height: int, width: int) -> Floats:
    """The terms 1, y, x, y², xy, x² at each pixel of a picture of this size, (H · W, 6)."""
    sides = (np.linspace(-1, 1, side, dtype=np.float32) for side in (height, width))
    y, x = (axis.ravel() for axis in np.meshgrid(*sides, indexing="ij"))
    return np.stack([np.ones_like(x), y, x, y * y, x * y, x * x], axis=1)


def _paper(grey: Floats) -> Floats:
    """The brightness of the paper (H, W): a quadratic surface for smooth light, and local medians for shadows."""
    scale = min(1.0, max(300 / max(grey.shape), 1 / min(grey.shape)))
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    terms = quadratic(*small.shape)
    some = slice(None, None, len(terms) // 256 | 1)
    points, values = terms[some], small.ravel()[some]
    near = np.abs(values - np.median(values)) < 60
    for _ in range(3):  # each fit uses the points near the surface of the last one
        weighted = (points * near[:, None]).T
        fit = np.linalg.solve(weighted @ points + RIDGE, weighted @ values)
        residual = np.abs(values - points @ fit)
        near = residual <= 2.5 * np.median(residual) + 3
    surface = (terms @ fit).reshape(small.shape)
    if min(grey.shape) >= SMALL or near.mean() <= 0.6:  # most points of a small picture lie on the surface
        surface += _local_median(small - surface)
    return np.asarray(cv2.resize(surface, grey.shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _local_median(flat: Floats) -> Floats:
    """The median of each pixel's surroundings (H, W), in a window that is some times wider than the strokes."""
    levels = (flat / 2 + 128).clip(0, 255).astype(np.uint8)
    usual, widest = (max(16, share * min(flat.shape)) for share in (0.6, 0.95))
    widths = np.append(np.geomspace(15, usual, 4), widest).round().astype(int) | 1
    medians = [cv2.medianBlur(levels, int(width)) for width in widths]
    differences = [cv2.absdiff(levels, median) for median in medians]
    rank = max(20, flat.size // 3000)
    strengths = [np.partition(difference.ravel(), -rank)[-rank] for difference in differences]
    number = next(number for number, strength in enumerate(strengths) if strength >= 0.8 * strengths[-1])
    areas = [np.count_nonzero(difference > 0.7 * strengths[number]) for difference in differences]
    while number < 4 and areas[number + 1] > 1.3 * areas[number]:  # so far only ends and corners of thick strokes
        number += 1
    return (medians[min(number + 1, 4)].astype(np.float32) - 128) * 2
