"""The digits of a picture found in its ink: strokes grouped, a form's lines and specks of dirt left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mnist_accel.pictures import ruled_lines as rules
from mnist_accel.pictures.ink import USUAL

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

FAINT, STRONG = 0.35, 0.5
"""Of the usual strength of ink: what belongs to a stroke if it touches the strong part of one."""
SPECK = 0.13
"""Of the tallest digit's height: what is smaller on both sides is dirt."""
SMALLEST_DIGIT = 0.4
"""Of the tallest one's height."""
NEAR = 0.3
"""Of the tallest one's height: how far a bar may be from the stroke that it belongs to."""
LINE = 4
"""Width by height from which a piece may be the line under a number."""
NEIGHBOURS = np.ones((3, 3), dtype=np.int8)


@dataclass(frozen=True)
class Mark:
    """What may be a digit.

    Attributes:
        box: where it is.
        ink: uint8 (H, W) of the box; other things in the box are left out.
        pieces: strokes that do not touch.
    """

    box: Box
    ink: npt.NDArray[np.uint8]
    pieces: int


@dataclass
class _Pieces:
    """Connected strokes: boxes int (N, 4), areas in pixels (N,), and the label of each in the map of labels."""

    boxes: npt.NDArray[np.int64]
    areas: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    def keep(self, chosen: npt.NDArray[np.bool_]) -> _Pieces:
        return _Pieces(self.boxes[chosen], self.areas[chosen], self.labels[chosen])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def widths(self) -> npt.NDArray[np.int64]:
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def heights(self) -> npt.NDArray[np.int64]:
        return self.boxes[:, 3] - self.boxes[:, 1]


def find_marks(strength: npt.NDArray[np.uint8]) -> list[Mark]:
    """What may be digits, in reading order: rows from the top, in each from the left.

    Args:
        strength: uint8 (H, W), as `ink.strength` gives it.
    """
    level = float(USUAL)
    mask = strength >= FAINT * level
    if min(strength.shape) >= rules.SMALLEST_SIDE:
        without_lines = rules.erase(mask)
        if without_lines is not mask:
            level = max(level, float(np.quantile(strength[without_lines], 0.7)))  # ink may be darker than the lines
            mask = without_lines & (strength >= FAINT * level)
    labelled, pieces = _pieces(mask, strength >= STRONG * level)
    if len(pieces) > 1:
        pieces = _without_frames(pieces, strength.shape)
    if not len(pieces):
        return []
    if len(pieces) == 1:
        left, top, right, bottom = (int(edge) for edge in pieces.boxes[0])
        own = labelled[top:bottom, left:right] == pieces.labels[0]
        return [Mark((left, top, right, bottom), strength[top:bottom, left:right] * own, 1)]
    groups = _group(pieces)
    marks = []
    for group in groups:
        boxes = pieces.boxes[group]
        left, top = boxes[:, :2].min(axis=0)
        right, bottom = boxes[:, 2:].max(axis=0)
        here = labelled[top:bottom, left:right]
        own = np.isin(here, pieces.labels[group])
        marks.append(
            Mark((int(left), int(top), int(right), int(bottom)), strength[top:bottom, left:right] * own, len(group))
        )
    return marks


def _pieces(mask: npt.NDArray[np.bool_], is_strong: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.int32], _Pieces]:
    """Connected parts that are strong somewhere and more than noise, with the map of their labels."""
    labelled, count = ndimage.label(mask, structure=NEIGHBOURS)
    areas = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    strong = np.bincount(labelled[is_strong], minlength=count + 1)[1:]
    slices = ndimage.find_objects(labelled)
    boxes = np.array(
        [(place[1].start, place[0].start, place[1].stop, place[0].stop) for place in slices], dtype=np.int64
    ).reshape(-1, 4)
    pieces = _Pieces(boxes, areas, np.arange(1, count + 1))
    return labelled, pieces.keep((strong > 0) & (areas >= 4))


def _without_frames(pieces: _Pieces, shape: tuple[int, ...]) -> _Pieces:
    """Without what encloses other pieces (a form's boxes), the picture's dark edges, and dirt."""
    left, top, right, bottom = pieces.boxes.T
    sizes = np.maximum(pieces.widths, pieces.heights)
    is_line = (pieces.widths > LINE * pieces.heights) & (pieces.widths > 1.2 * pieces.heights.max())
    if is_line.any() and not is_line.all():
        return _without_frames(pieces.keep(~is_line), shape)
    inside = (
        (left[:, None] < left) & (top[:, None] < top) & (right[:, None] > right) & (bottom[:, None] > bottom)
    )  # [a, b]: b lies in a's box
    is_part = (pieces.heights[None, :] >= 0.3 * pieces.heights[:, None]) | (sizes[None, :] >= 0.5 * sizes[:, None])
    fill = pieces.areas / (pieces.widths * pieces.heights)
    several = (inside & (sizes >= 0.08 * sizes[:, None])).sum(axis=1) >= 3
    is_frame = ((inside & is_part).any(axis=1) | several) & (fill < 0.5)
    pieces = pieces.keep(~is_frame)

    left, top, right, bottom = pieces.boxes.T
    height, width = shape
    at_edge = (left <= 1) | (top <= 1) | (right >= width - 1) | (bottom >= height - 1)
    if at_edge.any() and not at_edge.all():
        tallest = pieces.heights[~at_edge].max()
        odd = (np.maximum(pieces.widths, pieces.heights) > 2.2 * tallest) | (pieces.heights < 0.6 * tallest)
        solid = pieces.areas > 0.6 * pieces.widths * pieces.heights
        is_edge = at_edge & (odd | solid) & (tallest > SPECK * min(shape))
        pieces = pieces.keep(~is_edge)
    return pieces


def _group(pieces: _Pieces) -> list[list[int]]:
    """Indices of the pieces of each digit, in reading order."""
    upright = pieces.heights >= 0.5 * pieces.widths
    tallest = int(pieces.heights[upright].max()) if upright.any() else int(pieces.heights.max())
    sizes = np.maximum(pieces.widths, pieces.heights)
    large_enough = sizes > SPECK * tallest
    parents = list(range(len(pieces)))

    def root(index: int) -> int:
        while parents[index] != index:
            index = parents[index]
        return index

    bodies = [i for i in range(len(pieces)) if large_enough[i] and pieces.heights[i] >= 0.5 * tallest]
    for i in bodies:
        for j in bodies:
            if i < j and _are_stacked(pieces.boxes[i], pieces.boxes[j]):
                parents[root(j)] = root(i)
    others = [i for i in range(len(pieces)) if large_enough[i] and i not in bodies]
    for i in sorted(others, key=lambda i: -int(pieces.areas[i])):
        distances = [(_distance(pieces.boxes[i], pieces.boxes[j]), j) for j in bodies]
        near = [(distance, j) for distance, j in distances if distance <= NEAR * tallest]
        if near:
            parents[i] = root(min(near)[1])
    groups: dict[int, list[int]] = {}
    for i in range(len(pieces)):
        if large_enough[i]:
            groups.setdefault(root(i), []).append(i)
    kept = []
    for group in groups.values():
        boxes = pieces.boxes[group]
        height = int(boxes[:, 3].max() - boxes[:, 1].min())
        if height >= SMALLEST_DIGIT * tallest:
            kept.append(group)
    return _in_reading_order(kept, pieces)


def _distance(bar: npt.NDArray[np.int64], body: npt.NDArray[np.int64]) -> float:
    """Between two boxes; sideways counts twice, for there the next digit is."""
    across = max(0, int(max(bar[0], body[0]) - min(bar[2], body[2])))
    down = max(0, int(max(bar[1], body[1]) - min(bar[3], body[3])))
    return float(np.hypot(2 * across, down))


def _are_stacked(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> bool:
    """Whether two tall pieces are the upper and the lower part of one digit."""
    overlap = min(first[2], second[2]) - max(first[0], second[0])
    narrower = min(first[2] - first[0], second[2] - second[0])
    gap = max(first[1], second[1]) - min(first[3], second[3])
    shorter = min(first[3] - first[1], second[3] - second[1])
    return bool(overlap >= 0.5 * narrower and gap < 0.15 * shorter)


def _in_reading_order(groups: list[list[int]], pieces: _Pieces) -> list[list[int]]:
    boxes = {id(group): pieces.boxes[group] for group in groups}

    def span(group: list[int]) -> tuple[int, int, int]:
        box = boxes[id(group)]
        return int(box[:, 1].min()), int(box[:, 3].max()), int(box[:, 0].min())

    rows: list[list[list[int]]] = []
    for group in sorted(groups, key=lambda group: span(group)[0] + span(group)[1]):
        top, bottom, _ = span(group)
        for row in rows:
            row_top = min(span(other)[0] for other in row[-1:])
            row_bottom = max(span(other)[1] for other in row[-1:])
            if min(bottom, row_bottom) - max(top, row_top) > 0.4 * min(bottom - top, row_bottom - row_top):
                row.append(group)
                break
        else:
            rows.append([group])
    return [group for row in rows for group in sorted(row, key=lambda group: span(group)[2])]
