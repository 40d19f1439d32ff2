"""Finds a sheet of paper that lies on a darker table."""

import cv2
import numpy as np
import numpy.typing as npt

from mnist_accel.pictures import ink

SIDE = 160  # the page is searched for in a picture reduced to this many pixels
LEAST_RATIO = 1.5  # of the brightness of paper to that of the table
LEAST_SHARE, MOST_SHARE = 0.12, 0.97  # of the picture's area
LEAST_SOLID = 0.93  # of the area of the page's convex hull, without holes


def cut_out(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], int, int]:
    """The page in a picture, uint8 (H, W) or (H, W, 3), and its left and top; the whole picture if there is no page."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY) if pixels.ndim == 3 else pixels
    mask = _find(np.asarray(grey, np.uint8))
    if mask is None:
        return pixels, 0, 0
    left, top, width, height = cv2.boundingRect(mask)
    page, mask = (whole[top : top + height, left : left + width] for whole in (pixels, mask))
    # Corners outside the page get the colour of the page's nearest pixel. OpenCV numbers these row by row, from 1.
    nearest = cv2.distanceTransformWithLabels(1 - mask, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    return page[mask == 1][nearest - 1], left, top


def _find(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    """1 for the pixels of the page (H, W), in a picture of brightness; None if there is no page."""
    scale = SIDE / max(grey.shape)
    if scale > 1 or scale * min(grey.shape) < 5:  # smaller, or a strip
        return None
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = cv2.medianBlur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((5, 5))), 5)
    # The logarithm of brightness is the sum of two levels, paper and table, and of a smooth light: a quadratic surface.
    values = np.log(small.astype(np.float64).ravel() + 4)
    light = ink.quadratic(*small.shape)
    is_paper = values > (np.quantile(values, 0.03) + np.quantile(values, 0.97)) / 2
    for _ in range(12):  # levels and light, in turn with the pixels' assignment to paper and table
        terms = np.column_stack([light, is_paper])
        ridge = np.diag([0, 0, 0, 1, 1, 1, 0]) * 0.003 * len(values)
        fit = np.linalg.solve(terms.T @ terms + ridge + 1e-6 * np.eye(7), terms.T @ values)
        if fit[6] < np.log(LEAST_RATIO):
            return None
        before, is_paper = is_paper, values - light @ fit[:6] > fit[6] / 2
        if (before == is_paper).all():
            break
    return _hull(is_paper.reshape(small.shape), grey.shape)


def _hull(is_paper: npt.NDArray[np.bool_], shape: tuple[int, ...]) -> npt.NDArray[np.uint8] | None:
    """The largest light part, in the picture's size, if it is large and convex."""
    outlines, _ = cv2.findContours(is_paper.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    hull = cv2.convexHull(outline)
    area = cv2.contourArea(hull)
    x, y, width, height = cv2.boundingRect(hull)
    if sum((x == 0, y == 0, x + width == is_paper.shape[1], y + height == is_paper.shape[0])) > 1:  # lit, not a page
        return None
    if not LEAST_SHARE <= area / is_paper.size <= MOST_SHARE or cv2.contourArea(outline) < LEAST_SOLID * area:
        return None
    inside = cv2.fillConvexPoly(np.zeros(is_paper.shape, np.uint8), hull, 1)
    inside = cv2.erode(inside, np.ones((5, 5)), borderValue=1)  # blurred edges belong to both
    return np.asarray(cv2.resize(inside, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST))
