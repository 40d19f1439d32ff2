"""Finds the digits in a picture's ink: groups strokes into digits; leaves out frames, lines, edges and dirt."""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from mnist_accel.pictures import ink, ruled_lines
from mnist_accel.pictures.ruled_lines import Mask

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside
Pieces = npt.NDArray[np.int64]
"""Connected strokes (N, 6): left, top, right, bottom, `AREA` in pixels, `LABEL` in the map of labels."""
AREA, LABEL = 4, 5

FAINT, STRONG = 0.35, 0.5  # of the usual strength. A stroke is of faint pixels that are connected to a strong one.
DARKER = 1.15  # ink is darker than the paper's lines if it is stronger than 9/10 of their pixels by this factor
SPECK = 0.13  # of the tallest digit's height. A piece that is smaller on both sides is dirt.
MOST_MARKS = 60  # in one picture; more are text or texture


class Mark(NamedTuple):
    """A possible digit."""

    box: Box
    ink: npt.NDArray[np.uint8]  # (H, W), without the ink of other marks in its box
    pieces: int  # number of strokes that do not touch each other


def find_marks(strength: ink.Floats) -> list[Mark]:
    """The possible digits in a result of `ink.strength`, in reading order; of too many, `MOST_MARKS` and one."""
    mask = strength >= FAINT
    without_lines = ruled_lines.erase(mask)
    lines = mask & ~without_lines
    if is_ruled := bool(lines.any()):
        darker = strength > DARKER * np.quantile(strength[lines], 0.9)  # strokes that lie on a line
        strength = strength / max(1.0, float(np.quantile(strength[without_lines], 0.7)))  # ink may be darker than lines
        mask = (without_lines | darker) & (strength >= FAINT)
    labelled, pieces = _pieces(mask, strength >= STRONG)
    pieces = _without_edges(_without_frames(pieces), strength.shape, is_ruled=is_ruled)
    marks = []
    for group in _groups(pieces):
        left, top = group[:, :2].min(axis=0).tolist()
        right, bottom = group[:, 2:4].max(axis=0).tolist()
        here, labels = labelled[top:bottom, left:right], group[:, LABEL]
        own = here == labels[0] if len(labels) == 1 else np.isin(here, labels)  # isin is slow
        marks.append(Mark((left, top, right, bottom), ink.in_bytes(strength[top:bottom, left:right] * own), len(group)))
    return _in_reading_order(marks)


def _pieces(mask: Mask, is_strong: Mask) -> tuple[npt.NDArray[np.int32], Pieces]:
    """The map of labels (H, W), and the connected parts that hold strong ink and are larger than noise."""
    _, labelled, found, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    strong = np.bincount(labelled[is_strong], minlength=len(found)) > 0
    pieces = np.column_stack([found, np.arange(len(found))])[1:]  # the first is the paper
    pieces[:, 2:4] += pieces[:, :2]
    pieces = pieces[strong[1:] & (pieces[:, AREA] >= 4)]
    largest = np.argsort(-_sizes(pieces).max(axis=1), kind="stable")[:1000]  # a number has far fewer
    return np.asarray(labelled), pieces[np.sort(largest)]


def _sizes(pieces: Pieces) -> Pieces:
    """Widths and heights, (N, 2)."""
    return pieces[:, 2:4] - pieces[:, :2]


def _without_frames(pieces: Pieces) -> Pieces:
    """Without pieces that enclose others, such as the boxes of a form."""
    left, top, right, bottom = pieces[:, :4].T
    widths, heights = _sizes(pieces).T
    sizes = np.maximum(widths, heights)
    # [a, b]: b lies in a's box
    inside = (left[:, None] < left) & (top[:, None] < top) & (right[:, None] > right) & (bottom[:, None] > bottom)
    is_part = (heights >= 0.3 * heights[:, None]) | (sizes >= 0.5 * sizes[:, None])
    several = (inside & (sizes >= 0.08 * sizes[:, None])).sum(axis=1) >= 3
    is_open = pieces[:, AREA] < 0.5 * widths * heights
    return np.asarray(pieces[~(((inside & is_part).any(axis=1) | several) & is_open)])


def _without_edges(pieces: Pieces, shape: tuple[int, ...], *, is_ruled: bool) -> Pieces:
    """Without dark areas along the edges of the picture and, on ruled paper, without rests of its lines there."""
    left, top, right, bottom = pieces[:, :4].T
    at_edge = (left <= 1) | (top <= 1) | (right >= shape[1] - 1) | (bottom >= shape[0] - 1)
    if not at_edge.any() or (at_edge.all() and not is_ruled):
        return pieces
    widths, heights = _sizes(pieces).T
    sizes, tallest = np.maximum(widths, heights), heights[~at_edge].max(initial=0)
    odd = (sizes > 2.2 * tallest) | (heights < 0.6 * tallest)
    solid = pieces[:, AREA] > 0.6 * widths * heights
    strip = np.minimum(widths, heights) < 0.1 * sizes
    is_dark = (odd | solid) & ((tallest > SPECK * min(shape)) | strip)
    return np.asarray(pieces[~(at_edge & (is_dark | strip & is_ruled))])


def _groups(pieces: Pieces) -> list[Pieces]:
    """The pieces of each digit."""
    if len(pieces) < 2:
        return [pieces] * len(pieces)
    widths, heights = _sizes(pieces).T
    tallest = int((heights * (heights >= 0.5 * widths)).max() or heights.max())  # of upright pieces, if there are any
    large = np.maximum(widths, heights) > SPECK * tallest
    pieces, heights = pieces[large], heights[large]
    is_body = heights >= 0.5 * tallest
    linked = _are_stacked(pieces[:, :4])
    bodies, bars = np.flatnonzero(is_body), np.flatnonzero(~is_body)
    bar, body = pieces[bars, :4], pieces[bodies, :4]
    gaps = np.maximum(bar[:, None, :2], body[:, :2]) - np.minimum(bar[:, None, 2:], body[:, 2:])
    across, down = np.moveaxis(np.maximum(gaps, 0), -1, 0)
    distances = np.hypot(2.0 * across, down)  # sideways counts twice, because the next digit is there
    nearest = distances.argmin(axis=1)
    near = distances.min(axis=1) <= 0.3 * tallest
    linked[bars[near], bodies[nearest[near]]] = True
    linked |= linked.T | np.eye(len(linked), dtype=bool)
    first, before = np.arange(len(pieces)), np.array([])  # the first piece that is known to be in the same group
    while not np.array_equal(first, before):
        first, before = np.where(linked, first, len(first)).min(axis=1), first
    groups = (pieces[first == number] for number in np.unique(first))
    return [group for group in groups if np.ptp(group[:, [1, 3]]) >= 0.4 * tallest][: MOST_MARKS + 1]


def _are_stacked(boxes: Pieces) -> Mask:
    """Whether two pieces are the upper and the lower part of one digit; (N, N)."""
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    overlap, gap = (high - low)[..., 0], (low - high)[..., 1]
    sides = boxes[:, 2:] - boxes[:, :2]
    narrower, shorter = np.moveaxis(np.minimum(sides[:, None], sides), -1, 0)
    return np.asarray((overlap >= 0.5 * narrower) & (gap < 0.15 * shorter))


def _in_reading_order(marks: list[Mark]) -> list[Mark]:
    """Row by row. A mark belongs to a row if its box overlaps with that of the row's last mark by 40%."""
    rows: list[list[Mark]] = []
    for mark in sorted(marks, key=lambda mark: mark.box[1] + mark.box[3]):
        _, top, _, bottom = mark.box
        for row in rows:
            _, row_top, _, row_bottom = row[-1].box
            if min(bottom, row_bottom) - max(top, row_top) > 0.4 * min(bottom - top, row_bottom - row_top):
                row.append(mark)
                break
        else:
            rows.append([mark])
    return [mark for row in rows for mark in sorted(row, key=lambda mark: mark.box[0])]
