"""Requests to stop: signals, and a launcher that has died; and the agreement of all processes on them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from types import TracebackType
from typing import Any

from mnist_accel.errors import UserError
from mnist_accel.hardware.cores import is_launched

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StoppedError(UserError):
    """The run was asked to stop, and has; its exit code is 128 + the signal's number, as a shell has it."""

    def __init__(self, number: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.number = number
        self.exit_code = 128 + number
        self.is_shared = True


class StopRequests:
    """Notes signals while it is entered, so that the loop can stop between two steps. A second Ctrl-C leaves at once.

    A thread hears the signals: the main thread may be waiting for other processes, where Python runs no handler.
    Outside the main thread nothing is noted.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._parent = os.getppid()
        self._watches_parent = is_launched()
        self._handlers: dict[int, Any] = {}
        self._thread: threading.Thread | None = None

    @property
    def wanted(self) -> int:
        """The number of the signal to stop for; SIGTERM's when the launcher has died; 0 to go on."""
        if not self._noted and self._watches_parent and os.getppid() != self._parent:
            self._noted = int(signal.SIGTERM)
        return self._noted

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._previous_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP for us
                self._handlers[number] = signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        signal.set_wakeup_fd(self._previous_descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._writer.close()  # ends the thread
        self._thread.join()
        self._reader.close()

    def _listen(self) -> None:
        while heard := self._reader.recv(1):
            if self._noted and heard[0] == signal.SIGINT:
                if sys.stderr.isatty():
                    os.write(sys.stderr.fileno(), b"\x1b[?25h\n")  # the progress bar hides the cursor
                os._exit(128 + signal.SIGINT)
            if heard[0] in self._handlers:
                self._noted = self._noted or heard[0]
