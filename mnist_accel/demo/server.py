"""Serves the page to draw on, and reads the pictures that it sends. The page uses nothing from other servers."""

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from mnist_accel.errors import UserError
from mnist_accel.pictures import picture_file
from mnist_accel.pictures.predict import read_pictures

if TYPE_CHECKING:
    from mnist_accel.models.classifier import Classifier

FILES = {"/page.css": "text/css; charset=utf-8", "/page.js": "text/javascript; charset=utf-8"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there, so that no other program takes the port while the model is loaded."""
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        _Server(model, listener).serve_forever()


def reading(content: bytes, model: "Classifier") -> dict[str, Any]:
    """The network's reading of a picture file: the object of `predict --json`, with the picture's width and height.

    Each digit also has its `image`, the network's input as a data URL. An error is a sentence.
    """
    try:
        picture = picture_file.decode(content)
        [result] = read_pictures([picture], model, top_k=len(model.class_names))
    except UserError as error:
        return {"error": f"{str(error)[0].upper()}{str(error)[1:]}.", "digits": []}
    answer = result.as_json() | {"size": picture.size}
    if result.error:
        answer["error"] = f"Nothing found: {result.error.removeprefix('blank: ')}."
    for shown, digit in zip(answer["digits"], result.digits, strict=True):
        shown["image"] = picture_file.png_url(digit.image)
    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: "Classifier", listener: socket.socket) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.model = model
        templates = jinja2.Environment(loader=jinja2.PackageLoader("mnist_accel.demo", "."), autoescape=True)
        title = "Draw a digit" if "".join(model.class_names).isdigit() else "Draw a picture"
        page = templates.get_template("page.html").render(title=title, model=model)
        files = {path: (kind, Path(__file__).with_name(path[1:]).read_bytes()) for path, kind in FILES.items()}
        self.pages = files | {"/": ("text/html; charset=utf-8", page.encode())}

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a browser may leave early
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        if self.path not in self.server.pages:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._answer(*self.server.pages[self.path])

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/read" or not length.isdecimal():
            self.send_error(HTTPStatus.BAD_REQUEST)
        elif int(length) > picture_file.LARGEST_FILE:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            answer = reading(self.rfile.read(int(length)), self.server.model)
            self._answer("application/json", json.dumps(answer).encode())

    def _answer(self, kind: str, content: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 the name of the standard library
        """Nothing is printed for a request."""
