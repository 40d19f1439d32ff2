"""Finds the digits in a picture's ink: groups strokes into digits; leaves out frames, lines, edges and dirt."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse import csgraph

from mnist_accel.pictures import ruled_lines
from mnist_accel.pictures.ink import USUAL
from mnist_accel.pictures.picture_file import PictureError
from mnist_accel.pictures.ruled_lines import Mask

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are outside."""
Integers = npt.NDArray[np.int64]

FAINT, STRONG = 0.35, 0.5
"""Of the usual strength of ink. A stroke consists of faint pixels that are connected to a strong one."""
SPECK = 0.13
"""Of the tallest digit's height. A piece that is smaller on both sides is dirt."""
MOST_MARKS = 60
"""In one picture; more are text or texture."""


@dataclass(frozen=True)
class Mark:
    """A possible digit: its ink, uint8 (H, W), without the ink of other marks in its box."""

    box: Box
    ink: npt.NDArray[np.uint8]
    pieces: int
    """Number of strokes that do not touch each other."""


@dataclass
class _Pieces:
    """N connected strokes: boxes (N, 4), areas in pixels (N,), and their labels in the map of labels (N,)."""

    boxes: Integers
    areas: Integers
    labels: Integers

    def keep(self, chosen: Mask | Integers) -> "_Pieces":
        return _Pieces(self.boxes[chosen], self.areas[chosen], self.labels[chosen])

    @property
    def widths(self) -> Integers:
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def heights(self) -> Integers:
        return self.boxes[:, 3] - self.boxes[:, 1]

    @property
    def sizes(self) -> Integers:
        return np.maximum(self.widths, self.heights)


def find_marks(strength: npt.NDArray[np.uint8]) -> list[Mark]:
    """The possible digits in a result of `ink.strength`: rows from the top, in each row from the left.

    Raises:
        PictureError: there are more than `MOST_MARKS`.
    """
    level = float(USUAL)
    mask = strength >= FAINT * level
    if min(strength.shape) >= ruled_lines.SMALLEST_SIDE:
        without_lines = ruled_lines.erase(mask)
        if without_lines is not mask:
            level = max(level, float(np.quantile(strength[without_lines], 0.7)))  # ink may be darker than the lines
            mask = without_lines & (strength >= FAINT * level)
    labelled, pieces = _pieces(mask, strength >= STRONG * level)
    if len(pieces.labels) > 1:
        pieces = _without_edges(_without_frames(_without_underlines(pieces)), strength.shape)
    marks = []
    for group in _groups(pieces):
        left, top = (int(edge) for edge in pieces.boxes[group, :2].min(axis=0))
        right, bottom = (int(edge) for edge in pieces.boxes[group, 2:].max(axis=0))
        here, labels = labelled[top:bottom, left:right], pieces.labels[group]
        own = here == labels[0] if len(labels) == 1 else np.isin(here, labels)  # isin is slow
        marks.append(Mark((left, top, right, bottom), strength[top:bottom, left:right] * own, len(group)))
    return marks


def _pieces(mask: Mask, is_strong: Mask) -> tuple[npt.NDArray[np.int32], _Pieces]:
    """The map of labels (H, W), and the connected parts that hold strong ink and are larger than noise."""
    labelled, count = ndimage.label(mask, structure=np.ones((3, 3), dtype=np.int8))
    areas = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    strong = np.bincount(labelled[is_strong], minlength=count + 1)[1:]
    places = ndimage.find_objects(labelled)
    boxes = np.array([(x.start, y.start, x.stop, y.stop) for y, x in places], dtype=np.int64).reshape(-1, 4)
    pieces = _Pieces(boxes, areas, np.arange(1, count + 1)).keep((strong > 0) & (areas >= 4))
    largest = np.argsort(-pieces.sizes, kind="stable")[:1000]  # a number has far fewer
    return labelled, pieces.keep(np.sort(largest))


def _without_underlines(pieces: _Pieces) -> _Pieces:
    while True:
        is_line = (pieces.widths > 4 * pieces.heights) & (pieces.widths > 1.2 * pieces.heights.max())
        if not is_line.any() or is_line.all():
            return pieces
        pieces = pieces.keep(~is_line)


def _without_frames(pieces: _Pieces) -> _Pieces:
    """Without pieces that enclose others, such as the boxes of a form."""
    left, top, right, bottom = pieces.boxes.T
    heights, sizes = pieces.heights, pieces.sizes
    # [a, b]: b lies in a's box
    inside = (left[:, None] < left) & (top[:, None] < top) & (right[:, None] > right) & (bottom[:, None] > bottom)
    is_part = (heights >= 0.3 * heights[:, None]) | (sizes >= 0.5 * sizes[:, None])
    several = (inside & (sizes >= 0.08 * sizes[:, None])).sum(axis=1) >= 3
    fill = pieces.areas / (pieces.widths * heights)
    return pieces.keep(~(((inside & is_part).any(axis=1) | several) & (fill < 0.5)))


def _without_edges(pieces: _Pieces, shape: tuple[int, ...]) -> _Pieces:
    """Without dark areas along the edges of the picture."""
    left, top, right, bottom = pieces.boxes.T
    at_edge = (left <= 1) | (top <= 1) | (right >= shape[1] - 1) | (bottom >= shape[0] - 1)
    if not at_edge.any() or at_edge.all():
        return pieces
    tallest = pieces.heights[~at_edge].max()
    odd = (pieces.sizes > 2.2 * tallest) | (pieces.heights < 0.6 * tallest)
    solid = pieces.areas > 0.6 * pieces.widths * pieces.heights
    strip = (pieces.sizes > 0.3 * min(shape)) & (np.minimum(pieces.widths, pieces.heights) < 0.1 * pieces.sizes)
    return pieces.keep(~(at_edge & (odd | solid) & ((tallest > SPECK * min(shape)) | strip)))


def _groups(pieces: _Pieces) -> list[Integers]:
    """The indices of the pieces of each digit, in reading order."""
    if len(pieces.labels) < 2:
        return [np.arange(1)] * len(pieces.labels)
    upright = pieces.heights >= 0.5 * pieces.widths
    tallest = int(pieces.heights[upright if upright.any() else slice(None)].max())
    large = np.flatnonzero(pieces.sizes > SPECK * tallest)
    boxes, heights = pieces.boxes[large], pieces.heights[large]
    is_body = heights >= 0.5 * tallest
    linked = _are_stacked(boxes) & is_body & is_body[:, None]
    bodies, bars = np.flatnonzero(is_body), np.flatnonzero(~is_body)
    if len(bodies) and len(bars):
        distances = _distances(boxes[bars], boxes[bodies])
        nearest = distances.argmin(axis=1)
        near = distances.min(axis=1) <= 0.3 * tallest
        linked[bars[near], bodies[nearest[near]]] = True
    count, numbers = csgraph.connected_components(linked, directed=False)
    groups = [np.flatnonzero(numbers == number) for number in range(count)]
    outlines = np.array([[*boxes[group, :2].min(axis=0), *boxes[group, 2:].max(axis=0)] for group in groups])
    kept = np.flatnonzero(outlines[:, 3] - outlines[:, 1] >= 0.4 * tallest)
    if len(kept) > MOST_MARKS:
        raise PictureError(f"more than {MOST_MARKS} separate marks: this looks like text or texture, not a number")
    return [large[groups[kept[number]]] for number in _reading_order(outlines[kept])]


def _are_stacked(boxes: Integers) -> Mask:
    """Whether two tall pieces are the upper and the lower part of one digit; (N, N)."""
    low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
    overlap, gap = (high - low)[..., 0], (low - high)[..., 1]
    sides = boxes[:, 2:] - boxes[:, :2]
    narrower, shorter = np.moveaxis(np.minimum(sides[:, None], sides), -1, 0)
    return np.asarray((overlap >= 0.5 * narrower) & (gap < 0.15 * shorter))


def _distances(bars: Integers, bodies: Integers) -> npt.NDArray[np.float64]:
    """Between boxes, (bars, bodies). Sideways counts twice, because the next digit is there."""
    gaps = np.maximum(bars[:, None, :2], bodies[:, :2]) - np.minimum(bars[:, None, 2:], bodies[:, 2:])
    across, down = np.moveaxis(np.maximum(gaps, 0), -1, 0)
    return np.asarray(np.hypot(2.0 * across, down))


def _reading_order(boxes: Integers) -> list[int]:
    """The indices of boxes, row by row. A box belongs to a row if it overlaps with the row's last box by 40%."""
    rows: list[list[int]] = []
    for index in np.argsort(boxes[:, 1] + boxes[:, 3], kind="stable"):
        _, top, _, bottom = boxes[index]
        for row in rows:
            _, row_top, _, row_bottom = boxes[row[-1]]
            if min(bottom, row_bottom) - max(top, row_top) > 0.4 * min(bottom - top, row_bottom - row_top):
                row.append(int(index))
                break
        else:
            rows.append([int(index)])
    return [index for row in rows for index in sorted(row, key=lambda index: int(boxes[index, 0]))]
