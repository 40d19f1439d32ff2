"""Runs commands as forks of a process that has imported torch, which saves each of them seconds.

Each command is a process of its own, with its own signals, environment, folder, output and exit code. It behaves as
`python -m mnist_accel` does, except that its imports are done and one thread is the default. Linux only.
"""

import atexit
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest.mock import patch


class Forks:
    """The process that forks, as its user sees it."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:  # the process ends when the other side is closed
            command = [sys.executable, __file__, str(theirs.fileno())]
            self.process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        atexit.register(self.end)

    def end(self) -> None:
        self.connection.close()
        self.process.wait()

    def run(self, arguments: list[str], folder: Path, seconds: float) -> "subprocess.CompletedProcess[str]":
        """Run the command line with `arguments` in `folder`."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            request = json.dumps([arguments, str(folder)]).encode()
            self.connection.settimeout(seconds)
            socket.send_fds(self.connection, [request], [stdout.fileno(), stderr.fileno()])
            pid = int(self.connection.recv(20))
            try:
                status = int(self.connection.recv(20))
            except BaseException:
                os.kill(pid, signal.SIGKILL)
                self.connection.recv(20)
                raise
            stdout.seek(0)
            stderr.seek(0)
            code = os.waitstatus_to_exitcode(status)
            return subprocess.CompletedProcess(["mnist-accel", *arguments], code, stdout.read(), stderr.read())


def serve(connection: socket.socket) -> None:
    """Fork a process for each request. Returns in the forks, and ends with the other side."""
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, 2**17, 2)
        if not request:
            raise SystemExit
        pid = os.fork()
        if pid == 0:
            for number, descriptor in enumerate(descriptors, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            arguments, folder = json.loads(request)
            os.chdir(folder)
            sys.argv, sys.path[0] = ["mnist-accel", *arguments], folder
            return
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(str(pid).encode())
        connection.send(str(os.waitpid(pid, 0)[1]).encode())


def main() -> None:
    """Import what commands need, and serve; each fork runs its command."""
    import accelerate  # noqa: F401
    import torch

    from mnist_accel import cli
    from mnist_accel.hardware import accelerator
    from mnist_accel.reports import plots  # noqa: F401
    from mnist_accel.training import train  # noqa: F401

    # Tests run in as many processes as there are cores. Beside them, two threads are several times slower than one.
    torch.set_num_threads(1)
    patch.object(accelerator, "available_cores", lambda: 1).start()
    gc.freeze()  # else each fork copies the memory of all objects when it ends
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        serve(connection)
    try:
        cli.main()
    except SystemExit as leave:
        _exit(leave.code)


def _exit(code: object) -> None:
    """End this fork without freeing all objects, which takes longer than most commands."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
