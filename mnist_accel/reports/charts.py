"""Line charts as positions of an SVG picture; the page template draws them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEFT, TOP, RIGHT, BOTTOM = 52, 8, 392, 204
"""Edges of the plotted area in a picture of 400 × 240 units."""
MOST_POINTS = 300


class Line(NamedTuple):
    """A line of a chart. Lines of the same name and colour share an entry of the legend."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0


def counted(name: str, values: Sequence[float], colour: int = 0) -> Line:
    """Values of epochs or steps, counted from 1; if there are many, means of neighbours."""
    parts = np.array_split(np.asarray(values, dtype=np.float64), min(MOST_POINTS, len(values)))
    ends = np.cumsum([len(part) for part in parts])
    return Line(name, ends.tolist(), [float(part.mean()) for part in parts], colour)


def line_chart(
    lines: Sequence[Line], x_label: str, y_label: str, *, percent: bool = False, is_clipped: bool = False
) -> dict[str, Any]:
    """Lay out a chart; if `is_clipped`, from 0, and without the highest values at the beginning of a training.

    Returns:
        Labels; ticks (position, text); lines (colour, positions "x,y x,y …"); legend (name to colour); and points
        (position, text for the reader) for each x value.
    """
    all_x, all_y = np.concatenate([line.x for line in lines]), np.concatenate([line.y for line in lines])
    if is_clipped:
        all_y = np.append(all_y[all_y < 1.2 * np.quantile(all_y, 0.97)], 0.0)
    readings: dict[float, list[str]] = {}
    for line in lines:
        for x, y in zip(line.x, line.y, strict=True):
            readings.setdefault(x, []).append(f"{line.name} {f'{y:.2%}' if percent else f'{y:.4g}'}")
    x_ticks, y_ticks = _ticks(all_x, whole=x_label != "probability"), _ticks(all_y)
    x_positions = _positions(sorted(readings), all_x, LEFT, RIGHT)
    texts = [f"{x_label} {x:g}: {', '.join(found[:8])}" for x, found in sorted(readings.items())]
    return {
        "x_label": x_label,
        "y_label": y_label,
        "x_ticks": list(zip(_positions(x_ticks, all_x, LEFT, RIGHT), [f"{tick:g}" for tick in x_ticks], strict=True)),
        "y_ticks": [
            (position, f"{100 * tick:g}%" if percent else f"{tick:g}")
            for position, tick in zip(_positions(y_ticks, all_y, BOTTOM, TOP), y_ticks, strict=True)
        ],
        "lines": [
            (colour, _polyline(_positions(x, all_x, LEFT, RIGHT), _positions(y, all_y, BOTTOM, TOP)))
            for _, x, y, colour in lines
        ],
        "legend": {line.name: line.colour for line in lines},
        "points": list(zip(x_positions, texts, strict=True)),
    }


def _polyline(x_positions: list[float], y_positions: list[float]) -> str:
    return " ".join(f"{x},{y}" for x, y in zip(x_positions, y_positions, strict=True))


def _positions(values: Sequence[float], scale: npt.NDArray[np.float64], start: float, end: float) -> list[float]:
    """Positions between `start` and `end`, which stand for the ends of `scale`; values beyond them stay at the edge."""
    if np.ptp(scale) == 0:
        return [(start + end) / 2] * len(values)
    return [round(float(place), 1) for place in np.interp(values, [scale.min(), scale.max()], [start, end])]


def _ticks(scale: npt.NDArray[np.float64], *, whole: bool = False) -> list[float]:
    """Round numbers on a scale."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(nbins=5, integer=whole, min_n_ticks=1).tick_values(scale.min(), scale.max())
    return [round(float(tick), 10) for tick in ticks if scale.min() <= tick <= scale.max()]
