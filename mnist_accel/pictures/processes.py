"""Reads many pictures by several processes, if that is faster."""

import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from subprocess import PIPE, Popen
from typing import Any

import cv2

from mnist_accel.errors import LaunchError
from mnist_accel.hardware.cores import available_cores

TRIAL = 0.1  # seconds of reading after which the time for the rest is estimated
LEAST = 1.0  # seconds of reading for each process, which takes up to half a second to start
CHUNK = 0.1  # seconds that a process reads before it answers
ENDED = (BrokenPipeError, EOFError, pickle.UnpicklingError)  # the process at the other end of a pipe has ended


def each(read: Callable[[Any], Any], sources: Sequence[Any]) -> Iterator[Any]:
    """What `read`, a function of a module, returns for each source, in order."""
    spent, cores = 0.0, available_cores()
    for number, source in enumerate(sources, start=1):
        began = time.perf_counter()
        answer = read(source)
        spent += time.perf_counter() - began
        yield answer
        if spent > TRIAL:
            left = (len(sources) - number) * spent / number
            processes = min(cores, int(left / LEAST))
            if processes > 1:
                yield from _by_processes(read, sources[number:], processes, max(1, round(CHUNK * number / spent)))
                return


def _by_processes(read: Callable[[Any], Any], sources: Sequence[Any], processes: int, chunk: int) -> Iterator[Any]:
    """Do what `each` does by several processes, which read `chunk` sources each in turn."""
    chunks = [sources[start : start + chunk] for start in range(0, len(sources), chunk)]
    # Not by multiprocessing: its children import the main program again, which may train, and stay behind after a kill.
    command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
    import torch  # here, for the start-up time

    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # the other cores are for the readers
        # Ctrl-C ends only the program that asks: the readers are in groups of their own.
        popen = [Popen(command, stdin=PIPE, stdout=PIPE, process_group=0) for _ in range(processes)]
        readers = list(map(stack.enter_context, popen))
        try:
            for number, reader in enumerate(readers):
                assert reader.stdin
                with reader.stdin:
                    pickle.dump((read, chunks[number::processes]), reader.stdin)
            for number in range(len(chunks)):
                answers = readers[number % processes].stdout
                assert answers
                yield from pickle.load(answers)
        except ENDED as error:
            raise LaunchError("a process that reads pictures has ended", "check whether memory ran out") from error


def serve() -> None:
    """Answer a function and lists of sources, which stdin holds, until nobody reads the answers any more."""
    cv2.setNumThreads(1)  # the other cores have processes of their own
    with suppress(*ENDED):
        read, chunks = pickle.load(sys.stdin.buffer)
        for chunk in chunks:
            pickle.dump([read(source) for source in chunk], sys.stdout.buffer)
            sys.stdout.buffer.flush()
