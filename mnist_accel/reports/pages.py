"""Self-contained HTML pages: templates, style and script from the folder `templates`; all text is escaped."""

import base64
import hashlib
import io
from functools import cache
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from mnist_accel import __version__
from mnist_accel.errors import printable
from mnist_accel.reports.runs import Evaluation

Pictures = list[tuple[str, str]]


@cache
def _templates() -> jinja2.Environment:
    loader = jinja2.PackageLoader("mnist_accel.reports")
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    made.filters["percent"] = "{:.2%}".format
    return made


def render(template: str, **values: Any) -> bytes:
    """A page, whose content security policy allows its own style and script, and pictures inside the file."""
    environment = _templates()
    for name, file in (("style", "style.css"), ("script", "script.js")):
        content = environment.get_template(file).render()
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        values |= {name: Markup(content), f"{name}_hash": f"sha256-{digest}"}
    return environment.get_template(template).render(version=__version__, **values).encode()


def digits(evaluation: Evaluation, indices: npt.NDArray[np.int64]) -> Pictures:
    """Picture (data URI) and text of test images: the true class, and the prediction with its probability."""
    found, names = evaluation.predictions, [printable(name, 20) for name in evaluation.dataset.class_names]
    pictures = []
    for index in indices:
        buffer = io.BytesIO()
        Image.fromarray(evaluation.dataset.test.images[index]).save(buffer, "PNG", optimize=True)
        uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        true, predicted = names[found.labels[index]], names[found.predicted[index]]
        pictures.append((uri, f"{true} read as {predicted} ({found.probability[index]:.1%})"))
    return pictures
