import os
import pickle
import signal
import time

import pytest

from mnist_accel.hardware.signals import StoppedError, StopRequests


def wait_until_noted(stop: StopRequests) -> None:
    deadline = time.monotonic() + 5
    while not stop.wanted:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_interrupt_raises_keyboard_interrupt_in_a_callers_program() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequests() as stop:  # noqa: PT012  # the first one must not raise
        os.kill(os.getpid(), signal.SIGINT)
        wait_until_noted(stop)
        assert stop.wanted == signal.SIGINT
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_hang_up_is_a_request_to_stop_with_code_129() -> None:
    with StopRequests() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until_noted(stop)
    assert StoppedError(stop.wanted, "stopped by SIGHUP", "").exit_code == 129


def test_a_stopped_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(StoppedError(15, "stopped by SIGTERM", "continue with --resume auto")))
    assert (error.number, error.exit_code, error.is_shared) == (15, 143, True)
    assert str(error) == "stopped by SIGTERM; continue with --resume auto"
