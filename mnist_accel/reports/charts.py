"""Line charts as positions of an SVG picture; the page template draws them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 400, 240
LEFT, TOP, RIGHT, BOTTOM = 52, 8, 392, 204
"""Edges of the plotted area in units of the picture."""
MOST_POINTS = 300


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        colour: number of the colour. Lines of the same name and colour share an entry of the legend.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0

    @classmethod
    def thinned(cls, name: str, values: Sequence[float], colour: int = 0) -> "Series":
        """Values of steps counted from 1, as at most `MOST_POINTS` means of neighbouring steps."""
        parts = np.array_split(np.asarray(values, dtype=np.float64), min(MOST_POINTS, len(values)))
        ends = np.cumsum([len(part) for part in parts])
        return cls(name, ends.tolist(), [float(part.mean()) for part in parts], colour)

    @classmethod
    def numbered(cls, name: str, values: Sequence[float], colour: int = 0) -> "Series":
        """Values of epochs, counted from 1."""
        return cls(name, range(1, len(values) + 1), values, colour)


@dataclass(frozen=True)
class Chart:
    """A chart in units of the picture.

    Attributes:
        lines: colour and positions "x,y x,y …" of each line.
        points: position, and text for the reader, of each x value.
    """

    x_label: str
    y_label: str
    lines: list[tuple[int, str]]
    legend: dict[str, int]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    points: list[tuple[float, str]]


def line_chart(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    percent: bool = False,
    is_clipped: bool = False,
) -> Chart:
    """Lay out a line chart; if `is_clipped`, from 0, and without the highest values at the beginning of a training."""
    all_x, all_y = np.concatenate([line.x for line in series]), np.concatenate([line.y for line in series])
    x_low, x_high, y_low, y_high = (float(edge) for edge in (all_x.min(), all_x.max(), all_y.min(), all_y.max()))
    if is_clipped:
        y_low, y_high = 0.0, 1.2 * float(np.quantile(all_y, 0.97))

    def x(values: Sequence[float]) -> list[float]:
        return _positions(values, x_low, x_high, LEFT, RIGHT)

    def y(values: Sequence[float]) -> list[float]:
        return _positions(values, y_low, y_high, BOTTOM, TOP)

    readings: dict[float, list[str]] = {}
    for line in series:
        for at, value in zip(line.x, line.y, strict=True):
            readings.setdefault(at, []).append(f"{line.name} {f'{value:.2%}' if percent else f'{value:.4g}'}")
    x_ticks, y_ticks = _ticks(x_low, x_high, whole=x_label in ("epoch", "step")), _ticks(y_low, y_high)
    texts = [f"{100 * tick:g}%" if percent else f"{tick:g}" for tick in y_ticks]
    return Chart(
        x_label=x_label,
        y_label=y_label,
        lines=[
            (line.colour, " ".join(f"{a},{b}" for a, b in zip(x(line.x), y(line.y), strict=True))) for line in series
        ],
        legend={line.name: line.colour for line in series},
        x_ticks=list(zip(x(x_ticks), [f"{tick:g}" for tick in x_ticks], strict=True)),
        y_ticks=list(zip(y(y_ticks), texts, strict=True)),
        points=[(x([at])[0], f"{x_label} {at:g}: {', '.join(found[:8])}") for at, found in sorted(readings.items())],
    )


def _positions(values: Sequence[float], low: float, high: float, start: float, end: float) -> list[float]:
    """Values from `low` to `high` as positions from `start` to `end`; other values are moved to the nearer edge."""
    shares = (np.asarray(values) - low) / (high - low) if high > low else np.full(len(values), 0.5)
    return [round(start + share * (end - start), 1) for share in shares.clip(0, 1).tolist()]


def _ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`."""
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(nbins=5, integer=whole, min_n_ticks=1).tick_values(low, high)
    return [round(float(tick), 10) for tick in found if low <= tick <= high]
