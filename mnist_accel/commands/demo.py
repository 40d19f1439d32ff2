"""`mnist-accel demo`."""

from __future__ import annotations

import errno
import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import DebugOption, guarded
from mnist_accel.errors import UserError, WeightsError
from mnist_accel.files import atomic as files

EVERY_ADDRESS = ("0.0.0.0", "::")


def demo(
    weights: Annotated[Path, typer.Option(help="Weights file.")] = Path("mnist_cnn_model.pth"),
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 7860,
    debug: DebugOption = False,
) -> None:
    """Draw digits in the browser and see what the network makes of them. Needs pip install "mnist-accel[demo]".

    For example:

      mnist-accel demo

      mnist-accel demo --weights other.pth --port 8080
    """
    raise SystemExit(guarded(lambda: _demo(weights, host, port), debug=debug))


def _demo(weights: Path, host: str, port: int) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the demo needs Gradio, which is not installed", 'pip install "mnist-accel[demo]"')
    if not files.exists(weights):
        raise WeightsError(f"{weights}: no such file", "make it by mnist-accel train, or name another with --weights")
    with listen(host, port) as listener:
        from mnist_accel.demo.server import serve
        from mnist_accel.models import classifier

        model = classifier.load(weights)
        name = socket.gethostname() if host in EVERY_ADDRESS else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}"
        print(f"Open {address} in a browser. Ctrl-C ends it.", file=sys.stderr, flush=True)
        serve(model, listener)
    print("\nThe demo has ended.", file=sys.stderr)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; nobody can take the port any more while the model is read.

    Raises:
        UserError: the port is taken, or the address is none of this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is taken", "choose another one with --port") from error
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise UserError(f"cannot listen on {host}, port {port}: {reason}", "choose others by --host, --port") from error
