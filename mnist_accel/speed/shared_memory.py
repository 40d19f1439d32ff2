"""What gradients go through between processes: memory that they share where all compute on one machine's CPU.

Elsewhere DistributedDataParallel exchanges them by its backend, which on a CPU is Gloo. Gloo sends gradients through
sockets and sleeps until they have come. On two cores, with a step of 18 ms, that takes 6 ms a step; through shared
memory, and waiting awake, 1 to 2 (docs/performance.md).
"""

import mmap
import os
import platform
import select
import sys
import time
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.hardware.cores import local_world_size

MOST_PROCESSES = 4
"""Each process adds up what all have written: work that grows with their number, where a ring's does not."""
CACHE_LINE = 64
"""Bytes. A process' counter has one to itself; gradients begin at a multiple of it."""
AWAKE_SECONDS = 0.005
"""A waiting process keeps its core awake for so long, and only then sleeps between two looks."""
ORDERED = ("x86_64", "AMD64")
"""Processors that show a core's writes to the others in the order in which they were made."""


class SharedMemory:
    """Adds up gradients that all processes write side by side into one piece of memory.

    A process writes its gradients, sets its counter to the number of this exchange, waits until all counters have
    come so far, and reads. Exchanges use two halves of the memory in turn: nobody can be two exchanges ahead, so
    nothing is overwritten that is still being read. All add in the order of ranks and get the same bits.

    Args:
        descriptor: of the memory, of `memory_size(size, ...)` bytes, all zero.
        size: bytes of all gradients of one process, each rounded up to cache lines.
        processes: of this machine, by rank.
        timeout: seconds to wait for another process.

    Raises:
        OSError: the memory cannot be mapped, or a process has ended.
    """

    def __init__(self, descriptor: int, size: int, rank: int, processes: Sequence[int], timeout: float) -> None:
        self.rank, self.world_size, self.timeout = rank, len(processes), timeout
        memory = mmap.mmap(descriptor, memory_size(size, self.world_size))
        counters = self.world_size * CACHE_LINE
        self._counters = memoryview(memory)[:counters].cast("q")
        self._halves = torch.frombuffer(memory, dtype=torch.uint8)[counters:].view(2, self.world_size, -1)
        self._exchanges = 0
        self._buckets: list[tuple[Tensor, Future[Tensor]]] = []
        self._ends = select.poll()  # tells when a process ends, also by SIGKILL
        for process in processes:
            end = os.pidfd_open(process)
            weakref.finalize(self, os.close, end)
            self._ends.register(end, select.POLLIN)

    def average(self, bucket: distributed.GradBucket) -> Future[Tensor]:
        """The mean over processes of a bucket's gradients, once the last bucket of the step has come.

        A communication hook of DistributedDataParallel, which reads the annotations.
        """
        future: Future[Tensor] = Future()
        self._buckets.append((bucket.buffer(), future))
        if bucket.is_last():
            self._exchange()
        return future

    def _exchange(self) -> None:
        self._exchanges += 1
        half, begin = self._halves[self._exchanges % 2], 0
        written: list[list[Tensor]] = []  # by bucket and rank
        for gradients, _ in self._buckets:
            end = begin + gradients.nbytes
            written.append([part[begin:end].view(gradients.dtype) for part in half])
            torch.div(gradients, self.world_size, out=written[-1][self.rank])
            begin = _whole_lines(end)
        self._wait_for_all()
        for (gradients, future), parts in zip(self._buckets, written, strict=True):
            torch.add(parts[0], parts[1], out=gradients)
            for part in parts[2:]:
                gradients += part
            future.set_result(gradients)
        self._buckets.clear()

    def _wait_for_all(self) -> None:
        """Until all processes have written.

        Raises:
            DistError: one has ended, or did not come in time.
        """
        line = CACHE_LINE // self._counters.itemsize
        self._counters[self.rank * line] = self._exchanges
        began = time.monotonic()
        for other in range(self.world_size):
            ended: object = False
            while self._counters[other * line] < self._exchanges:
                waited = time.monotonic() - began
                if ended:
                    raise distributed.DistError("its gradients did not come")
                if waited > self.timeout:
                    raise distributed.DistError(f"timed out after {self.timeout:g} s, waiting for its gradients")
                if waited < AWAKE_SECONDS:
                    os.sched_yield()  # where there are more processes than cores, to one that works
                else:
                    ended = self._ends.poll(1)  # ms


def memory_size(size: int, world_size: int) -> int:
    """Bytes that `SharedMemory` needs for gradients of `size` bytes a process, a multiple of `CACHE_LINE`."""
    return world_size * (CACHE_LINE + 2 * size)


def prepare_exchange(model: nn.Module, hardware: Hardware, images: Tensor) -> str:
    """Let `model` exchange gradients through shared memory where that can be; what they go through, for people.

    On every process of several, before the first step. Some `images` (B, 1, 28, 28) pass through the model, and its
    gradients are to be thrown away.
    """
    wrapper = next(module for module in model.modules() if isinstance(module, DistributedDataParallel))
    shared = share_memory([parameter for parameter in model.parameters() if parameter.requires_grad], hardware)
    if shared is not None:
        wrapper.register_comm_hook(shared, SharedMemory.average)
    # Gradients of convolutions in oneDNN's layout; they are copied once a step in either order, 65,000 numbers.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # DistributedDataParallel chooses its buckets after the first backward pass that it sees. Buckets decide in which
    # order gradients are added; a resumed run would add its first step's in another order than the uninterrupted one,
    # and differ in the last bits. In evaluation mode neither dropout's random numbers nor running statistics change.
    model.eval()
    for _ in range(2):  # the second forward pass adopts what the first backward pass found
        model(images).sum().backward()
    return "shared memory" if shared else distributed.get_backend()


def share_memory(parameters: list[nn.Parameter], hardware: Hardware) -> SharedMemory | None:
    """Memory that all processes see, for the gradients of `parameters`; None where one of them cannot have it."""
    size = sum(_whole_lines(parameter.nbytes) for parameter in parameters)
    is_alone = hardware.device.type == "cpu" and hardware.world_size == local_world_size()
    place = _place() if is_alone and hardware.world_size <= MOST_PROCESSES else None
    memory = _memory(memory_size(size, hardware.world_size)) if hardware.is_main and place else None
    places, processes, memories = zip(*hardware.gather((place, os.getpid(), memory)), strict=True)
    shared = None
    if memories[0] is not None and len(set(places)) == 1:
        try:
            with Path(f"/proc/{processes[0]}/fd/{memories[0]}").open("r+b", buffering=0) as file:
                shared = SharedMemory(file.fileno(), size, hardware.rank, processes, hardware.timeout)
        except OSError:
            shared = None  # forbidden to this user, or by the sandbox: nobody uses it then
    is_missing = hardware.largest(shared is None)
    if memory is not None:
        os.close(memory)  # all have it by now; it goes with the last process
    return None if is_missing else shared


def _whole_lines(size: int) -> int:
    """Bytes, rounded up to cache lines."""
    return -(-size // CACHE_LINE) * CACHE_LINE


def _place() -> str | None:
    """This machine and its space of process numbers, in one word; None where memory cannot be shared."""
    if sys.platform != "linux" or platform.machine() not in ORDERED or not hasattr(os, "pidfd_open"):
        return None
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def _memory(size: int) -> int | None:
    """Descriptor of memory without a name, all zero; None where there is no room for it."""
    try:
        descriptor = os.memfd_create("gradients")
    except OSError:
        return None
    try:
        os.posix_fallocate(descriptor, 0, size)  # without it the first write where no room is left ends the process
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
