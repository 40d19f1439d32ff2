"""Notes signals, and the death of the launcher, so that the training loop can stop between two steps."""

import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any, Self

from mnist_accel.errors import UserError


class StoppedError(UserError):
    """The run was asked to stop and has stopped. Its exit code is 128 + the signal's number, as in a shell."""

    is_shared = True

    def __init__(self, number: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.number = number
        self.exit_code = 128 + number


class StopRequests:
    """Notes signals inside its `with` block. Outside the main thread it notes nothing.

    A second thread receives the signals: the main thread may be waiting for other processes in C++ code, where Python
    runs no signal handler. A second Ctrl-C ends this process immediately if `leaves_at_once`, as a command should.
    Otherwise it raises KeyboardInterrupt, as a notebook expects.

    Attributes:
        wants_status: whether SIGUSR1 has asked for the position of the run.
    """

    def __init__(self, *, leaves_at_once: bool = False) -> None:
        self.leaves_at_once = leaves_at_once
        self._noted = self._interrupts = 0
        self.wants_status = False
        is_launched = "RANK" in os.environ or "ACCELERATE_DYNAMO_BACKEND" in os.environ  # by torchrun or accelerate
        self._launcher = os.getppid() if is_launched else None
        self._handlers: dict[int, Any] = {}
        self._thread: threading.Thread | None = None

    @property
    def wanted(self) -> int:
        """The number of the signal to stop for; SIGTERM's if the launcher has died; 0 to continue."""
        if not self._noted and self._launcher not in (None, os.getppid()):
            self._noted = int(signal.SIGTERM)
        return self._noted

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP for this process
                self._handlers[number] = signal.signal(number, self._handle)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        signal.set_wakeup_fd(self._previous_descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._writer.close()  # ends the thread
        self._thread.join()
        self._reader.close()

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1 and not self.leaves_at_once:
            raise KeyboardInterrupt

    def _listen(self) -> None:
        while received := self._reader.recv(1):
            number = received[0]
            if self._noted and number == signal.SIGINT and self.leaves_at_once:
                if sys.stderr.isatty():
                    os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # the progress bar has hidden the cursor
                os._exit(128 + signal.SIGINT)
            if number == signal.SIGUSR1:
                self.wants_status = True
            elif number in self._handlers:
                self._noted = self._noted or number
