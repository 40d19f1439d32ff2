"""The HTML of the demo's answers."""

import base64
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from mnist_accel.pictures import picture_file
from mnist_accel.pictures.predict import Digit, read_pictures

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from mnist_accel.models.classifier import Classifier

PNG_URL = "data:image/png;base64,"


def heading(model: "Classifier") -> tuple[str, str]:
    """The page's title as text, and its heading as HTML."""
    title = "Draw a digit" if all(name.isdigit() for name in model.class_names) else "Draw a picture"
    trained_on = f", trained on {model.trained_on}" if model.trained_on else ""
    return title, (
        f"<h1>{title}</h1><p>Large, with the mouse or a finger, and see how the network reads it.</p>"
        f"<p class='small'>Weights: {escape(model.path.name + trained_on)}. Your drawings and pictures go to "
        "the program that shows this page, and nowhere else.</p>"
    )


def message(model: "Classifier", text: str) -> str:
    """A message in place of an answer, with empty bars."""
    return _verdict("", text) + _bars(model, {})


def answer(pixels: "npt.NDArray[np.uint8]", model: "Classifier") -> str:
    """The network's reading of a picture, uint8 (H, W) or (H, W, 3)."""
    [result] = read_pictures([pixels], model, top_k=len(model.class_names))
    if result.error:
        return message(model, sentence(result.error))
    if len(result.digits) > 1:
        doubtful = sum(bool(digit.doubt) for digit in result.digits)
        text = f"{len(result.digits)} digits" + (f", {doubtful} of them doubtful (?)." if doubtful else ".")
        return _verdict("\n".join(result.lines), text) + _seen(result.digits, "The network's input for each digit.")
    [digit] = result.digits
    sure = "over 99%" if digit.probability > 0.995 else f"{digit.probability:.0%}"
    verdict = _verdict(_reading(digit), sentence(digit.doubt or f"the network is {sure} sure"))
    caption = "The network's input: 28 × 28 pixels, centred, like the pictures that it was trained on."
    return verdict + _bars(model, dict(digit.top)) + _seen([digit], caption)


def sentence(text: str) -> str:
    """Text with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def png_url(image: Image.Image) -> str:
    """The image as a data URL."""
    return PNG_URL + base64.b64encode(picture_file.png(image)).decode()


def _reading(digit: Digit) -> str:
    return f"{digit.label}?" if digit.doubt else digit.label


def _verdict(reading: str, text: str) -> str:
    return f"<div class='verdict' role='status'><strong>{escape(reading)}</strong><p>{escape(text)}</p></div>"


def _bars(model: "Classifier", probabilities: dict[str, float]) -> str:
    """A bar for each class, in the order of the classes, so that no bar moves while someone draws."""
    rows = []
    for name in model.class_names:
        share = probabilities.get(name, 0.0)
        bar = f"<span class='bar'><i style='width: {share:.1%}'></i></span>"
        rows.append(f"<span>{escape(name)}</span>{bar}<span>{f'{share:.0%}' if probabilities else ''}</span>")
    return f"<div class='bars'>{''.join(rows)}</div>"


def _seen(digits: list[Digit], caption: str) -> str:
    figures = []
    for digit in digits:
        image = f"<img src='{png_url(Image.fromarray(digit.image))}' alt='{escape(digit.label)} for the network'>"
        below = escape(f"{_reading(digit)} {digit.probability:.0%}")
        figures.append(f"<figure title='{escape(digit.doubt)}'>{image}<figcaption>{below}</figcaption></figure>")
    several = "several" if len(digits) > 1 else ""
    return f"<div class='seen {several}'>{''.join(figures)}<p class='small'>{escape(caption)}</p></div>"
