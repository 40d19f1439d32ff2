"""The page of `mnist-accel demo`: draw a digit and see at once what the network makes of it.

Built on Gradio, with what makes it talk to others turned off: the page and the server know only each other.
"""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mnist_accel.models.classifier import Classifier
from mnist_accel.pictures import picture_file as picture
from mnist_accel.pictures.picture_file import Picture, PictureError
from mnist_accel.pictures.predict import Digit, read_picture

if TYPE_CHECKING:
    import gradio

PAGE = Path(__file__).parent
"""What the browser gets of this project's own: the drawing area and the style."""
SHOWN_SIDE = 560
"""Pixels of the drawing area's side, in which an opened picture is shown."""
PNG_URL = "data:image/png;base64,"


def serve(model: Classifier, listener: socket.socket) -> None:
    """Show the page to whoever connects to `listener`, until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is removed
    with tempfile.TemporaryDirectory(prefix="mnist-accel-demo-") as folder:
        # Read by Gradio and huggingface_hub when they are imported. Opened pictures do not outlive the page.
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": folder,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1",
        }
        import gradio
        import uvicorn
        from fastapi import FastAPI

        # launch() would ask the page for its own address by way of a proxy, and take another port than was asked for.
        app = gradio.mount_gradio_app(
            FastAPI(),
            build(model),
            path="/",
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            show_error=False,
            max_file_size=picture.LARGEST_FILE,
            # The default theme's fonts may come from Google.
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css_paths=PAGE / "page.css",
        )
        # An open page holds a connection for ever; at the end it is cut.
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return


def build(model: Classifier) -> gradio.Blocks:
    """The page."""
    import gradio

    def read_drawing(url: str | None) -> str:
        if not url:
            return invitation(model)
        return answer(picture.decode(base64.b64decode(url.removeprefix(PNG_URL))), model)

    def read_upload(content: bytes) -> tuple[str, str]:
        try:
            opened = picture.decode(content)
        except PictureError as error:
            return "", _verdict("", _sentence(f"this file: {error}")) + _bars(model, {})
        shown = Image.fromarray(opened.pixels)
        shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        return _png_url(shown), answer(opened, model)

    thing = "digit" if all(name.isdigit() for name in model.class_names) else "picture"
    trained_on = f", trained on {model.trained_on}" if model.trained_on else ""
    page = gradio.Blocks(title=f"Draw a {thing}", analytics_enabled=False)
    with page:
        gradio.HTML(
            f"<h1>Draw a {thing}</h1><p>Large, with the mouse or a finger, and see what the network makes of it.</p>"
            f"<p class='small'>Weights: {escape(model.path.name + trained_on)}. What is drawn or opened here goes to "
            "the program that shows this page, and nowhere else.</p>"
        )
        with gradio.Row():
            with gradio.Column():
                drawing = gradio.HTML(
                    html_template=(PAGE / "drawing.html").read_text(encoding="utf-8"),
                    js_on_load=(PAGE / "drawing.js").read_text(encoding="utf-8"),
                    elem_id="drawing",
                )
                with gradio.Row():
                    clear = gradio.Button("Clear", size="md", min_width=100)
                    upload = gradio.UploadButton(
                        "Open a picture", type="binary", file_types=["image"], size="md", min_width=100
                    )
            with gradio.Column():
                output = gradio.HTML(invitation(model), elem_id="answer")
        how: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        # Of the drawings that come while one is read, the newest is read next.
        drawing.input(read_drawing, drawing, output, trigger_mode="always_last", **how)
        upload.upload(read_upload, upload, [drawing, output], **how)
        clear.click(None, js="() => document.querySelector('#drawing canvas').dispatchEvent(new Event('clear'))")
    return page


def invitation(model: Classifier) -> str:
    """HTML of the answer while nothing is drawn."""
    return _verdict("", "Draw, and the answer shows up here.") + _bars(model, {})


def answer(drawn: Picture, model: Classifier) -> str:
    """HTML of what the network makes of a picture."""
    result = read_picture(drawn.pixels, model, top_k=len(model.class_names))
    if result.error:
        return _verdict("", _sentence(result.error)) + _bars(model, {})
    if len(result.digits) > 1:
        doubtful = sum(bool(digit.doubt) for digit in result.digits)
        sentence = f"{len(result.digits)} digits" + (f", {doubtful} of them doubtful (?)." if doubtful else ".")
        return _verdict(result.text, sentence) + _seen(result.digits, "What the network saw of each.")
    [digit] = result.digits
    sure = "over 99%" if digit.probability > 0.995 else f"{digit.probability:.0%}"
    sentence = _sentence(digit.doubt or f"the network is {sure} sure")
    caption = "What the network saw: 28 × 28 pixels, centred, as the pictures that it learnt from."
    reading = f"{digit.label}?" if digit.doubt else digit.label
    return _verdict(reading, sentence) + _bars(model, dict(digit.top)) + _seen([digit], caption)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else ".")


def _verdict(reading: str, sentence: str) -> str:
    return f"<div class='verdict' role='status'><strong>{escape(reading)}</strong><p>{escape(sentence)}</p></div>"


def _bars(model: Classifier, probabilities: dict[str, float]) -> str:
    """A bar for each class, in the order of the classes, so that none jumps while someone draws."""
    rows = []
    for name in model.class_names:
        share = probabilities.get(name)
        width, shown = ("0", "") if share is None else (f"{share:.1%}", f"{share:.0%}")
        bar = f"<span class='bar'><i style='width: {width}'></i></span>"
        rows.append(f"<span>{escape(name)}</span>{bar}<span>{shown}</span>")
    return f"<div class='bars'>{''.join(rows)}</div>"


def _seen(digits: Sequence[Digit], caption: str) -> str:
    figures = []
    for digit in digits:
        image = f"<img src='{_png_url(Image.fromarray(digit.image))}' alt='{escape(digit.label)} for the network'>"
        below = escape(f"{digit.label}{'?' if digit.doubt else ''} {digit.probability:.0%}")
        figures.append(f"<figure title='{escape(digit.doubt)}'>{image}<figcaption>{below}</figcaption></figure>")
    several = "several" if len(digits) > 1 else ""
    return f"<div class='seen {several}'>{''.join(figures)}<p class='small'>{escape(caption)}</p></div>"


def _png_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return PNG_URL + base64.b64encode(file.getvalue()).decode()
