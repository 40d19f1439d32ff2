"""Matplotlib figures that are drawn into memory, whatever backend the environment names."""

from __future__ import annotations

import contextlib
import io
import os

# The import of Matplotlib fails where MPLBACKEND names a backend that is not installed. Figures here need none.
# A valid name is set afterwards, as the import would have done, for the caller's own use of pyplot.
_backend = os.environ.pop("MPLBACKEND", "")
try:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
finally:
    if _backend:
        os.environ["MPLBACKEND"] = _backend
with contextlib.suppress(ValueError):
    if _backend:
        matplotlib.rcParams["backend"] = _backend

DPI = 150


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # attaches itself to the figure
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
