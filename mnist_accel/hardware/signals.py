"""Notes signals, and the death of the launcher, so that the training loop can stop between two steps."""

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from mnist_accel.errors import UserError


class StoppedError(UserError):
    """The run was asked to stop and has stopped. Its exit code is 128 + the signal's number, as in a shell."""

    is_shared = True

    def __init__(self, number: int, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.number, self.exit_code = number, 128 + number


class StopRequests:
    """Notes signals inside its `with` block, in the main thread; a second Ctrl-C raises KeyboardInterrupt there."""

    def __init__(self) -> None:
        self._noted = 0
        self.wants_status = False  # whether SIGUSR1 has asked for the position of the run
        is_launched = "RANK" in os.environ or "ACCELERATE_DYNAMO_BACKEND" in os.environ  # by torchrun or accelerate
        self._launcher = os.getppid() if is_launched else None
        self._handlers: dict[int, Any] = {}

    @property
    def wanted(self) -> int:
        """The number of the signal to stop for; SIGTERM's if the launcher has died; 0 to continue."""
        if not self._noted and self._launcher not in (None, os.getppid()):
            self._noted = int(signal.SIGTERM)
        return self._noted

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP for this process
                    self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.wants_status = True
        elif self._noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self._noted = self._noted or number
