"""Exchanges gradients through shared memory, between processes that compute on one machine's CPU.

Otherwise DistributedDataParallel exchanges them through its backend, Gloo on a CPU. Gloo uses sockets and sleeps while
it waits. On two cores, with a step of 18 ms, that takes 6 ms per step; shared memory with busy waiting takes 1 to 2 ms
(docs/performance.md).
"""

import contextlib
import mmap
import os
import platform
import select
import sys
import time
import uuid
import warnings
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate.utils import gather_object
from torch import Tensor, distributed, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

MAX_PROCESSES = 4  # each process adds the gradients of all, so the work grows with their number; a backend's does not
CACHE_LINE = 64  # bytes; each process' counter has a cache line of its own


def prepare_exchange(model: nn.Module, images: Tensor, timeout: float, enabled: bool) -> str:
    """Choose how the processes exchange gradients: through "shared memory", or by the name of the backend.

    Called on every process, before the first step. `model` contains a DistributedDataParallel; `images` (B, C, H, W)
    are passed through it, so its gradients must be set to zero afterwards. `timeout` is in seconds.
    """
    wrapper = next(module for module in model.modules() if isinstance(module, DistributedDataParallel))
    size = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    shared = _share_memory(size, timeout) if enabled and images.device.type == "cpu" else None
    if shared is not None:
        wrapper.register_comm_hook(shared, SharedMemory.average)
    # oneDNN's convolution gradients have another layout than the buckets. They are copied once per step either way.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # DistributedDataParallel rebuilds its buckets after its first backward pass, and buckets decide the order in which
    # gradients are added. Without these passes, the first step of a resumed run would round differently. Evaluation
    # mode changes neither dropout's random numbers nor running statistics.
    model.eval()
    for _ in range(2):  # the second forward pass applies what the first backward pass found
        model(images).sum().backward()
    return "shared memory" if shared else distributed.get_backend()


class SharedMemory:
    """Averages gradients that all processes write side by side into one piece of memory.

    Each process writes its gradients, sets its counter to the number of this exchange, waits until all counters have
    reached that number, and reads. Exchanges alternate between two halves of the memory: no process can be two
    exchanges ahead, so none overwrites gradients that another still reads. All processes add in the order of ranks and
    get the same bits. `descriptor` is that of the memory file: zeros, with room for the counters and the two halves.
    """

    def __init__(self, descriptor: int, process_ids: Sequence[int], timeout: float) -> None:
        self.rank, self.world_size, self.timeout = distributed.get_rank(), len(process_ids), timeout
        memory = mmap.mmap(descriptor, 0)
        counters = self.world_size * CACHE_LINE
        self._counters = memoryview(memory)[:counters].cast("q")[:: CACHE_LINE // 8]  # by rank
        self._halves = torch.frombuffer(memory, dtype=torch.uint8)[counters:].view(2, self.world_size, -1)
        self._exchanges = 0
        self._buckets: list[tuple[Tensor, Future[Tensor]]] = []
        self._ends = select.poll()  # reports that a process has ended, even by SIGKILL
        for process_id in process_ids:
            end = os.pidfd_open(process_id)
            weakref.finalize(self, os.close, end)
            self._ends.register(end, select.POLLIN)

    def average(self, bucket: distributed.GradBucket) -> Future[Tensor]:
        """The mean of a bucket's gradients over the processes. DistributedDataParallel checks the annotations."""
        future: Future[Tensor] = Future()
        self._buckets.append((bucket.buffer(), future))
        if bucket.is_last():
            self._exchange()
        return future

    def _exchange(self) -> None:
        self._exchanges += 1
        sizes = [gradients.nbytes for gradients, _ in self._buckets]
        written = self._halves[self._exchanges % 2, :, : sum(sizes)].split(sizes, dim=1)  # by bucket (ranks, bytes)
        for (gradients, _), parts in zip(self._buckets, written, strict=True):
            torch.div(gradients, self.world_size, out=parts[self.rank].view(gradients.dtype))
        self._wait_for_all()
        for (gradients, future), parts in zip(self._buckets, written, strict=True):
            first, second, *others = parts.view(gradients.dtype)
            torch.add(first, second, out=gradients)
            for other in others:
                gradients.add_(other)
            future.set_result(gradients)
        self._buckets.clear()

    def _wait_for_all(self) -> None:
        """Wait until all processes have written. Raise DistError if one has ended, or exceeds the time-out."""
        self._counters[self.rank] = self._exchanges
        began = time.monotonic()
        for other in range(self.world_size):
            ended: object = False
            while self._counters[other] < self._exchanges:
                waited = time.monotonic() - began
                if ended:
                    raise distributed.DistError("it has ended before sending its gradients")
                if waited > self.timeout:
                    raise distributed.DistError(f"timed out after {self.timeout:g} s, waiting for its gradients")
                if waited < 0.005:  # at first without sleeping
                    os.sched_yield()  # where there are more processes than cores, let another one work
                else:
                    ended = self._ends.poll(1)  # ms


def _share_memory(size: int, timeout: float) -> SharedMemory | None:
    """Memory for `size` bytes of gradients per process that all processes have mapped; None where one cannot."""
    world_size, name = distributed.get_world_size(), f"gradients-{uuid.uuid4().hex}"
    is_ordered = sys.platform == "linux" and platform.machine() == "x86_64"  # cores see another's writes in their order
    descriptor, shared = None, None
    if is_ordered and world_size <= MAX_PROCESSES and distributed.get_rank() == 0:
        descriptor = os.memfd_create(name)
        with contextlib.suppress(OSError):  # no room: the memory stays empty, and mmap refuses it
            os.posix_fallocate(descriptor, 0, world_size * (CACHE_LINE + 2 * size))
    of_processes = gather_object([(os.getpid(), descriptor, name)])
    main_process, main_descriptor, name = of_processes[0]
    path = Path(f"/proc/{main_process}/fd/{main_descriptor}")
    with contextlib.suppress(OSError, ValueError):  # on another machine, in another container, not permitted, or empty
        if name in str(path.readlink()):
            with path.open("r+b", buffering=0) as file:
                shared = SharedMemory(file.fileno(), [process for process, *_ in of_processes], timeout)
    all_have_it = all(gather_object([shared is not None]))
    if descriptor is not None:
        os.close(descriptor)  # the memory is freed with the last process
    return shared if all_have_it else None
