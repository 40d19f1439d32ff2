"""Self-contained HTML pages from the folder `templates`: all text is escaped. Charts and pictures for them."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
import numpy as np

from mnist_accel import __version__
from mnist_accel.errors import printable
from mnist_accel.pictures.picture_file import png_url
from mnist_accel.reports.runs import Evaluation
from mnist_accel.reports.tables import as_text

MOST_POINTS = 300  # of a line of a chart
Pictures = list[tuple[str, str]]
Chart = dict[str, Any]  # the names of the axes, "x" and "y", and "lines"; drawn by script.js


def render(template: str, **values: Any) -> bytes:
    """A page, whose content security policy allows its own style and script, and pictures inside the file."""
    loader, undefined = jinja2.PackageLoader("mnist_accel.reports"), jinja2.StrictUndefined
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=undefined, trim_blocks=True)
    environment.filters |= {"percent": "{:.2%}".format, "text": as_text}
    for name, file in (("style", "style.css"), ("script", "script.js")):
        content = environment.get_template(file).render()
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        values |= {name: content, f"{name}_hash": f"sha256-{digest}"}
    return environment.get_template(template).render(version=__version__, **values).encode()


def digits(evaluation: Evaluation, indices: Iterable[int]) -> Pictures:
    """Picture (data URI) and text of test images: the true class, and the prediction with its probability."""
    found, names = evaluation.predictions, [printable(name, 20) for name in evaluation.dataset.class_names]
    pictures = []
    for index in indices:
        true, predicted = names[found.labels[index]], names[found.predicted[index]]
        text = f"{true} read as {predicted} ({found.probability[index]:.1%})"
        pictures.append((png_url(evaluation.dataset.test.images[index]), text))
    return pictures


def line(name: str, values: Sequence[float], colour: int = 0, x: Sequence[float] = ()) -> dict[str, Any]:
    """A line of a chart, of values counted from 1; if there are many, means of neighbours."""
    parts = np.array_split(np.asarray(values, dtype=np.float64), min(MOST_POINTS, len(values)))
    ends = np.cumsum([len(part) for part in parts]).tolist()
    return {"name": name, "x": x or ends, "y": [float(np.mean(part)) for part in parts], "colour": colour}
