"""The devices, processes, threads and precision of a run, and what its processes do together."""

import atexit
import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, is_initialized
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, TorchDynamoPlugin
from torch import distributed

from mnist_accel.errors import LaunchError, UserError
from mnist_accel.hardware import rendezvous
from mnist_accel.hardware.cores import available_cores, cpu_name, has_compiler, launched_world_size, local_world_size
from mnist_accel.hardware.heartbeats import Heartbeats
from mnist_accel.hardware.precision import choose_precision
from mnist_accel.speed import keep_freed_memory

Result = TypeVar("Result")
PATIENCE = timedelta(hours=1)
"""Time-out for work of one process that the others wait for, such as writing to a slow disk."""


@dataclass(frozen=True)
class Hardware:
    """The hardware of a run, and the communication between its processes.

    Attributes:
        precision_reason: in words for people.
        timeout: seconds that a process waits for the others in a collective.
        speedups: whether the run uses mnist_accel/speed.
        compiled: whether Accelerate compiles models.
        control: the group in which several processes agree on things; on the CPU whatever device they use.
        heartbeats: the reports of several processes, which name one that is lost.
    """

    accelerator: Accelerator
    device_name: str
    threads: int
    mixed_precision: str
    precision_reason: str
    timeout: float
    speedups: bool
    compiled: bool
    control: distributed.ProcessGroup | None
    heartbeats: Heartbeats | None

    @property
    def device(self) -> torch.device:
        return cast("torch.device", self.accelerator.device)

    @property
    def world_size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def together(self, work: Callable[[], Result]) -> Result:
        """Do `work` on every process. If it raises a UserError, all raise that of the lowest rank, so that none waits.

        The others wait up to `PATIENCE` for the slowest one, longer than `timeout`.
        """
        result, failure = None, None
        try:
            result = work()
        except UserError as error:
            failure = error
        if self.control is not None:
            distributed.monitored_barrier(self.control, timeout=PATIENCE)
        for first in self.gather(failure):
            if first is not None:
                first.is_shared = True
                raise first
        return cast("Result", result)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Raise a LaunchError that names the lost process where the communication inside this block fails."""
        with self.heartbeats or contextlib.nullcontext():
            try:
                yield
            except Exception as error:
                if (lost := lost_contact(error)) is None:
                    raise
                named = self.heartbeats.lost_processes() if self.heartbeats else lost.message
                raise LaunchError(named, lost.hint) from error

    def require_same(self, facts: dict[str, Any], hint: str) -> None:
        """Raise a UserError on all processes that names the facts in which they differ, if there are any."""
        found = self.gather(facts)
        values = {name: sorted({str(other.get(name)) for other in found}) for name in facts}
        different = [f"{name} is {' and '.join(texts)}" for name, texts in values.items() if len(texts) > 1]
        if different:
            error = UserError(f"the processes were not started alike: {'; '.join(different)}", hint)
            error.is_shared = True
            raise error

    def gather(self, value: Result) -> list[Result]:
        """The values of all processes, by rank."""
        values = [value] * self.world_size
        if self.control is not None:
            distributed.all_gather_object(values, value, group=self.control)
        return values


def start_hardware(
    *,
    cpu: bool,
    mixed_precision: str,
    threads: int | None,
    timeout: int,
    processes: int | None = None,
    dtype: str = "float32",
    compiled: bool = False,
    accumulation_steps: int = 1,
    speedups: bool = True,
) -> Hardware:
    """Set up Accelerate. The arguments are those of `config.settings`; `accumulation_steps` only affects `compiled`."""
    kind = (None if cpu else accelerator_type()) or "cpu"
    launched, patience = launched_world_size() or 1, timedelta(seconds=timeout)
    _require_support(kind, processes, compiled)
    mixed_precision, reason = choose_precision(mixed_precision, kind, dtype)
    store = None
    if kind in ("cpu", "cuda"):
        store = rendezvous.join("gloo" if kind == "cpu" else "nccl", patience)
    plugin = _compiler(kind, accumulation_steps) if compiled else None
    accelerator = _accelerator(kind, mixed_precision, patience, plugin)
    if accelerator.num_processes != launched:
        raise LaunchError(
            f"{launched} processes were started, but only {accelerator.num_processes} joined",
            "start them with torchrun or --processes",
        )
    torch.set_num_threads(threads := threads or max(1, available_cores() // local_world_size()))
    keep_freed_memory(speedups)
    control = heartbeats = None
    if launched > 1:
        atexit.register(stop)  # for callers in Python
        control = cast("distributed.ProcessGroup", distributed.new_group(backend="gloo", timeout=patience))
        if store is not None:
            heartbeats = Heartbeats(store, accelerator.process_index, launched)
    chosen = (mixed_precision, reason, timeout, speedups, compiled)
    return Hardware(accelerator, _device_name(accelerator.device), threads, *chosen, control, heartbeats)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name() if device.type == "cpu" else device.type


def _require_support(kind: str, processes: int | None, compiled: bool) -> None:
    """Raise a UserError where this machine or this process cannot do what was asked for."""
    if processes and processes > 1 and launched_world_size() is None:
        raise UserError(
            f"processes {processes}: one Python call is one process",
            "use the command line's --processes, torchrun or accelerate.notebook_launcher",
        )
    if kind != "cpu" and local_world_size() > gpu_count():
        raise UserError(
            f"{local_world_size()} processes were started here, but this machine has {gpu_count()} GPUs",
            "start one for each GPU, or add --cpu",
        )
    if compiled and kind == "cpu" and not has_compiler():
        raise UserError("--compile needs a C++ compiler on a CPU, and none was found", "install g++ or clang")


def _accelerator(kind: str, mixed_precision: str, timeout: timedelta, plugin: TorchDynamoPlugin | None) -> Accelerator:
    if is_initialized() and not hasattr(AcceleratorState(), "made_by_mnist_accel"):
        raise UserError("this program has set up Accelerate itself", "run this in a process of its own")
    # Forget an earlier run in this process, but not a PartialState that the caller made. Both functions are private. A
    # public one that changes Accelerate's settings would replace them; 1.15 has none.
    AcceleratorState._reset_state(reset_partial_state=is_initialized())  # noqa: SLF001
    GradientState._reset_state()  # noqa: SLF001
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OMP_NUM_THREADS/MKL_NUM_THREADS unset")  # threads are set afterwards
        accelerator = Accelerator(
            cpu=kind == "cpu",
            mixed_precision=mixed_precision,
            # The training loop divides the loss by the batch size. Without this, a number from the environment could
            # divide it again.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            dynamo_plugin=plugin,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
        )
    accelerator.state.made_by_mnist_accel = True
    return accelerator


def _compiler(kind: str, accumulation_steps: int) -> TorchDynamoPlugin:
    """Inductor; on a GPU with CUDA graphs, which save launching each kernel.

    Without them where gradients are accumulated, because one replay overwrites the gradients of another
    (https://github.com/pytorch/pytorch/issues/169545), and where processes exchange gradients.
    """
    is_whole_batch = accumulation_steps * (launched_world_size() or 1) == 1
    mode = "reduce-overhead" if kind == "cuda" and is_whole_batch else "default"
    return TorchDynamoPlugin(backend="inductor", mode=mode)


def stop() -> None:
    """Leave the process group. Without this, a process could end while its threads communicate, and abort."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def lost_contact(error: Exception) -> LaunchError | None:
    """The error to report if `error` means that another process no longer answers; otherwise None."""
    text = str(error).partition("\n")[0]
    signs = ("gloo", "closed by peer", "timed out waiting", "monitoredbarrier")
    has_sign = any(sign in text.lower() for sign in signs)
    if not isinstance(error, distributed.DistError) and not (isinstance(error, RuntimeError) and has_sign):
        return None
    is_silent = "timed out" in text.lower() or "timeout" in text.lower()
    what = "did not answer in time (--timeout)" if is_silent else "has ended or cannot be reached"
    return LaunchError(f"another process {what} ({text[:150]})", "see what happened to it; continue with --resume auto")


def accelerator_type() -> str | None:
    """Type of the accelerator that torch uses here, such as cuda or mps; None without one."""
    device = torch.accelerator.current_accelerator(check_available=True)
    return device.type if device else None


def gpu_count() -> int:
    """The number of accelerators that torch can use on this machine."""
    return torch.accelerator.device_count() if accelerator_type() else 0
