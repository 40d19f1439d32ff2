import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import ModelOption


def demo(
    weights: Annotated[Path, typer.Option(help="Weights file.")] = Path("mnist_cnn_model.pth"),
    model: ModelOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 accepts other machines, too.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 7860,
) -> int:
    """Draw digits in the browser and see how the network reads them.

    For example:
      mnist-accel demo --weights other.pth --port 8080
    """
    from mnist_accel.demo import server  # starts without torch, so that a wrong port is reported at once

    with server.listen(host, port) as listener:
        from mnist_accel.models import classifier

        network = classifier.load(weights, model=model)
        name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}"
        print(f"Open {address} in a browser. Press Ctrl-C to end it.", file=sys.stderr, flush=True)
        server.serve(network, listener)
    print("\nThe demo has ended.", file=sys.stderr)
    return 0
