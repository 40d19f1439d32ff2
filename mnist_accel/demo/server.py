"""Serves the demo's page with Gradio. Everything in Gradio that contacts other servers is turned off."""

import base64
import contextlib
import errno
import importlib.util
import os
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mnist_accel.demo import page
from mnist_accel.errors import UserError
from mnist_accel.pictures import picture_file
from mnist_accel.pictures.picture_file import PictureError

if TYPE_CHECKING:
    from mnist_accel.models.classifier import Classifier

FILES = Path(__file__).parent
SIDE = 560
"""The side of the drawing area in pixels; an opened picture is reduced to it."""
INVITATION = "Draw, and the answer appears here."


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, so that no other program takes the port while the model is loaded."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs Gradio, which is not installed", 'pip install "mnist-accel[demo]"')
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is taken", "choose another one with --port") from error
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(f"cannot listen on {host}, port {port}: {reason}", "choose others by --host, --port") from error


def serve(model: "Classifier", listener: socket.socket) -> None:
    """Show the page to everyone who connects to `listener`, until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the folder is removed
    with tempfile.TemporaryDirectory(prefix="mnist-accel-demo-") as folder:
        # Gradio and huggingface_hub read these when they are imported. Opened pictures are deleted with the folder.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
        os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
        import uvicorn

        # An open page keeps a connection open; it is closed after a second.
        config = uvicorn.Config(_app(model), log_level="critical", timeout_graceful_shutdown=1)
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _app(model: "Classifier") -> Any:
    import gradio
    from fastapi import FastAPI

    # Gradio's launch() would request the page's own address through a proxy, and might take another port.
    return gradio.mount_gradio_app(
        FastAPI(),
        _build(model),
        path="/",
        footer_links=[],
        **dict.fromkeys(("run_history", "enable_monitoring", "mcp_server", "ssr_mode", "pwa", "show_error"), False),
        max_file_size=picture_file.LARGEST_FILE,
        # The default theme's fonts may come from Google.
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        css_paths=FILES / "page.css",
    )


def _build(model: "Classifier") -> Any:
    import gradio

    title, heading = page.heading(model)
    with gradio.Blocks(title=title) as blocks:
        gradio.HTML(heading)
        with gradio.Row():
            with gradio.Column():
                drawing = gradio.HTML(
                    html_template=f"<canvas width={SIDE} height={SIDE} role=img aria-label='Drawing area'></canvas>",
                    js_on_load=(FILES / "drawing.js").read_text(encoding="utf-8"),
                    elem_id="drawing",
                )
                with gradio.Row():
                    size: dict[str, Any] = {"size": "md", "min_width": 100}
                    clear = gradio.Button("Clear", **size)
                    upload = gradio.UploadButton("Open a picture", type="binary", file_types=["image"], **size)
            with gradio.Column():
                output = gradio.HTML(page.message(model, INVITATION), elem_id="answer")
        how: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
        # Of the drawings that arrive while one is read, only the newest is read next.
        drawing.input(lambda url: _read_drawing(url, model), drawing, output, trigger_mode="always_last", **how)
        upload.upload(lambda content: _read_upload(content, model), upload, [drawing, output], **how)
        clear.click(None, js="() => document.querySelector('#drawing canvas').dispatchEvent(new Event('clear'))")
    return blocks


def _read_drawing(url: str | None, model: "Classifier") -> str:
    if not url:
        return page.message(model, INVITATION)
    return page.answer(picture_file.decode(base64.b64decode(url.removeprefix(page.PNG_URL))).pixels, model)


def _read_upload(content: bytes, model: "Classifier") -> tuple[str, str]:
    try:
        pixels = picture_file.decode(content).pixels
    except PictureError as error:
        return "", page.message(model, page.sentence(f"this file: {error}"))
    shown = Image.fromarray(pixels)
    shown.thumbnail((SIDE, SIDE))
    return page.png_url(shown), page.answer(pixels, model)
