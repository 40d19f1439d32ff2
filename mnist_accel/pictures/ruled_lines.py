"""Erases the straight lines of ruled paper, squared paper and forms from a map of ink."""

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Heights = npt.NDArray[np.float64]  # the distance of a line from the upper edge, in several columns

SMALLEST_SIDE = 100  # pixels. In smaller pictures, lines and strokes cannot be told apart, except in a row of boxes.
THICKEST = 0.02  # of the picture's shorter side
SHORTEST = 0.5  # of the picture's width (height)
STEEPEST = 0.1  # the largest slope of lines, in radians
MANY = 4  # parallel lines; a digit has up to three
LONGER = 1.6  # a line is at least so many times as long as the other ink is tall; a bar or a stem is shorter


def erase(mask: Mask) -> Mask:
    """The mask of ink (H, W) without long straight lines; strokes that cross a line stay complete."""
    thickest = max(4, round(THICKEST * min(mask.shape)))
    is_small = min(mask.shape) < SMALLEST_SIDE
    if is_small and mask.shape[1] < 2 * mask.shape[0]:
        return mask
    across, rows = _lines(mask, thickest, SHORTEST)
    down, columns = _lines(np.ascontiguousarray(mask.T), thickest, SHORTEST)
    lines = across | down.T
    rest = mask & (cv2.dilate(lines.view(np.uint8), np.ones((7, 7))) == 0)  # without crossings
    if not lines.any() or not rest.any() or (is_small and rows < 2):
        return mask
    result, is_paper, tall = mask, max(rows, columns) >= MANY, LONGER * _extent(rest.T)
    if rows and (is_paper or _extent(across) >= tall):
        result = mask & ~across & ~_sides(mask, across, thickest)
    if columns and (is_paper or _extent(down) >= tall):
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
        part = np.ascontiguousarray(mask[strip].T)
        sides[strip] = _lines(part, thickest, 0.85 * height / part.shape[1])[0].T
    return sides


def _extent(mask: Mask) -> float:
    """The width of what is drawn, without 1% of its pixels on each side."""
    first, last = np.quantile(np.nonzero(mask)[1], (0.01, 0.99)).tolist()
    return float(last - first + 1)


def _lines(mask: Mask, thickest: int, shortest: float) -> tuple[Mask, int]:
    """The pixels of roughly horizontal lines, without strokes that cross them; and the number of lines."""
    thin = _thin(mask, thickest)
    edges = np.diff(thin, axis=0, prepend=False) & thin  # one pixel for each vertical run of ink
    thickest = min(thickest, max(4, round(3 * float(thin.sum() / max(1, edges.sum())))))
    lines, columns = np.empty((0, 33)), np.linspace(0, mask.shape[1], 33)
    for ends in _aligned(edges, max(2, thickest // 2), shortest):  # several are of one line; the best one comes first
        if (np.abs(ends.mean() - lines.mean(axis=1)) > thickest).all():
            lines = np.vstack([lines, _course(edges, ends, thickest, columns)])
    points = [np.stack([columns, heights], axis=1).round().astype(np.int32) for heights in lines]
    drawn = cv2.polylines(np.zeros_like(mask, np.uint8), points, False, 1)
    near = cv2.dilate(drawn, np.ones((2 * thickest + 1, 1))) > 0
    width = min(thickest, round(1.5 * float((thin & near).sum() / max(1, (edges & near).sum())) + 1))
    on_line = cv2.dilate(drawn, np.ones((2 * width + 1, 1))) > 0
    gaps = np.diff(np.sort(lines.mean(axis=1)))
    return _thin(mask, width) & on_line, min(1, len(lines)) + int((gaps > thickest).sum())


def _course(edges: Mask, ends: Heights, reach: int, columns: Heights) -> Heights:
    """A line's heights at `columns`: a parabola through the runs of ink around it, since paper bends."""
    width, top = edges.shape[1], max(0, int(ends.min()) - reach)
    y, x = np.nonzero(edges[top : int(ends.max()) + reach + 1])
    curve = np.array([(ends[1] - ends[0]) / width, ends[0] - top])
    for distance in (reach, reach / 2, reach / 3):
        near = np.abs(y - np.polyval(curve, x)) <= max(2, distance)
        if np.count_nonzero(near) > 20:
            is_long = np.ptp(x[near]) > width / 2
            curve = np.polyfit(x[near], y[near], 2 if is_long else 1)
    return np.asarray(np.polyval(curve, columns) + top)


def _thin(mask: Mask, thickest: int) -> Mask:
    """The vertical runs of at most `thickest` pixels."""
    thick = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((thickest + 1, 1), np.uint8))
    return np.asarray(mask & (thick == 0))


def _aligned(points: Mask, step: int, shortest: float) -> Heights:
    """The heights at the left and at the right edge of lines on which many points lie, (N, 2), by a Hough transform."""
    height, width = points.shape
    strips = np.logical_or.reduceat(points, np.arange(0, height, step), axis=0).astype(np.uint8)
    strips = np.asarray(cv2.dilate(strips, np.ones((3, 1))))  # points in three strips belong to one line
    least, steepest = max(6 * step, 0.05 * width), STEEPEST / step
    low, high = np.pi / 2 - steepest, np.pi / 2 + steepest
    found = cv2.HoughLinesWithAccumulator(strips, 1, steepest / 30, round(least), min_theta=low, max_theta=high)
    if found is None:
        return np.empty((0, 2))
    distances, angles, counts = found.reshape(-1, 3).T.astype(np.float64)
    starts, ends = (step * ((distances - x * np.cos(angles)) / np.sin(angles) + 0.5) for x in (0, width))
    slopes = (ends - starts) / width
    is_line = counts >= shortest * width
    if np.count_nonzero(is_line) >= MANY:  # then also lines that cut off a corner of the picture
        edges = np.sort(np.stack([-starts, height - starts]) / np.where(slopes == 0, 1e-9, slopes), axis=0)
        inside = np.diff(edges.clip(0, width), axis=0)[0]
        alike = np.abs(slopes - np.median(slopes[is_line])) < STEEPEST / 10
        is_line |= alike & (counts >= np.maximum(0.6 * inside, least))
    return np.asarray(np.stack([starts, ends], axis=1)[is_line])
