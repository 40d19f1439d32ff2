"""Device, processes, threads and precision of a run: chosen, checked against what was asked for, and explained."""

from __future__ import annotations

import atexit
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, TorchDynamoPlugin

from mnist_accel.config.settings import RunConfig
from mnist_accel.errors import LaunchError, UserError
from mnist_accel.hardware import rendezvous
from mnist_accel.hardware.cores import available_cores, launched_world_size, local_world_size
from mnist_accel.speed import keep_freed_memory

Result = TypeVar("Result")
PATIENCE = timedelta(hours=1)
"""For work of one process that the others wait for, such as writing to a slow disk."""


@dataclass(frozen=True)
class Hardware:
    """What a run computes on.

    Attributes:
        device_name: the processor's or accelerator's own name.
        threads: CPU threads of this process.
        mixed_precision: no, bf16 or fp16.
        precision_reason: why, in words for people.
        timeout: seconds that a process waits for the others in a collective.
        control: of several processes, the group in which they agree, on the CPU whatever they compute on.
    """

    accelerator: Accelerator
    device_name: str
    threads: int
    mixed_precision: str
    precision_reason: str
    timeout: float
    control: distributed.ProcessGroup | None = None
    speedups: bool = True

    @property
    def local_world_size(self) -> int:
        """Processes of this run on this machine."""
        return local_world_size()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.accelerator.device
        return device

    @property
    def world_size(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def together(self, work: Callable[[], Result]) -> Result:
        """Do `work` on every process; when it fails on one, all raise that process' error and none waits for another.

        However long one process works, the others' waiting does not count against the time-out of collectives.

        Raises:
            UserError: the first process' that met one.
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
        return cast(Result, result)

    def require_same(self, facts: dict[str, Any], hint: str) -> None:
        """Make sure that all processes have the same facts; when not, all raise.

        Raises:
            UserError: naming the facts that differ.
        """
        found = self.gather(facts)
        different = [name for name in facts if any(other.get(name) != facts[name] for other in found)]
        if different:
            values = [
                f"{name} is {' and '.join(sorted({str(other.get(name)) for other in found}))}" for name in different
            ]
            error = UserError(f"the processes were not started alike: {'; '.join(values)}", hint)
            error.is_shared = True
            raise error

    def largest(self, number: int) -> int:
        """The largest of all processes' numbers."""
        if self.control is None:
            return number
        largest = torch.tensor(number)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=self.control)
        return int(largest)

    def gather(self, value: Result) -> list[Result]:
        """The values of all processes, by rank."""
        values = [value] * self.world_size
        if self.control is not None:
            distributed.all_gather_object(values, value, group=self.control)
        return values

    def from_main(self, value: Result) -> Result:
        """The main process' value, on every process."""
        values = [value]
        if self.control is not None:
            distributed.broadcast_object_list(values, src=0, group=self.control)
        return values[0]


def start(config: RunConfig, *, compiled: bool = False) -> Hardware:
    """Bring up Accelerate as `config` asks.

    Args:
        config: what is asked for.
        compiled: whether models are to be compiled.

    Raises:
        UserError: the machine cannot do what was asked for.
        LaunchError: fewer processes joined than the launcher started.
    """
    launched = launched_world_size() or 1
    if config.processes and config.processes > 1 and launched == 1:
        raise UserError(
            f"processes {config.processes}: one Python call is one process",
            "use the command line's --processes, torchrun or accelerate.notebook_launcher",
        )
    on_cpu = config.cpu or _accelerator_type() is None
    if not on_cpu and local_world_size() > gpu_count():
        raise UserError(
            f"{local_world_size()} processes were started here, but this machine has {gpu_count()} GPUs",
            "start one for each GPU, or add --cpu",
        )
    mixed_precision, reason = choose_precision(config, torch.device("cpu") if on_cpu else None)
    if compiled and on_cpu and not has_compiler():
        raise UserError("--compile needs a C++ compiler on a CPU, and none was found", "install g++ or clang")
    timeout = timedelta(seconds=config.timeout)
    # A process may train more than once (a notebook); Accelerate's singletons refuse a second precision.
    if AcceleratorState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    if backend := "gloo" if on_cpu else {"cuda": "nccl"}.get(_accelerator_type() or ""):
        rendezvous.join(backend, timeout)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "OMP_NUM_THREADS/MKL_NUM_THREADS unset")  # threads are set below
        accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=mixed_precision,
            # The loss is divided by the batch's true size in the engine; without this Accelerate may divide again, by
            # a number from its environment.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            dynamo_plugin=_compiler(config, launched) if compiled else None,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
        )
    if accelerator.num_processes != launched:
        raise LaunchError(
            f"{launched} processes were started, but they see only {accelerator.num_processes} of each other",
            "start them with torchrun or --processes",
        )
    threads = config.threads or max(1, available_cores() // local_world_size())
    torch.set_num_threads(threads)
    keep_freed_memory(True)
    control: distributed.ProcessGroup | None = None
    if launched > 1:
        atexit.register(stop)  # a Python caller need not know of it
        control = cast(distributed.ProcessGroup, distributed.new_group(backend="gloo", timeout=timeout))
    device_name = _device_name(accelerator.device)
    return Hardware(accelerator, device_name, threads, mixed_precision, reason, config.timeout, control)


def stop() -> None:
    """Leave the process group. Without this, a process that ends early is torn down while its threads talk."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def lost_contact(error: Exception) -> LaunchError | None:
    """What to tell the user when `error` is about a process that no longer answers; None when it is not."""
    text = (str(error).splitlines() or [""])[0]
    is_theirs = isinstance(error, distributed.DistError) or any(
        sign in text.lower() for sign in ("gloo", "closed by peer", "timed out waiting")
    )
    if not isinstance(error, RuntimeError) or not is_theirs:
        return None
    silent = "timed out" in text.lower() or "timeout" in text.lower()
    return LaunchError(
        f"another process {'did not answer in time (--timeout)' if silent else 'has ended or cannot be reached'} "
        f"({text[:150]})",
        "see what happened to it; continue with --resume auto",
    )


def _accelerator_type() -> str | None:
    device = torch.accelerator.current_accelerator(check_available=True)
    return device.type if device else None


def gpu_count() -> int:
    """Accelerators that this machine offers to torch; 0 without one."""
    return torch.accelerator.device_count() if _accelerator_type() else 0


def choose_precision(config: RunConfig, device: torch.device | None) -> tuple[str, str]:
    """The precision and why; `device` is None for the machine's accelerator."""
    kind = device.type if device else _accelerator_type()
    if getattr(config, "dtype", "float32") == "float64":
        return "no", "float64 weights"
    precision, reason = config.mixed_precision, "as asked"
    if precision == "auto":
        configured = _accelerate_precision()
        if configured:
            precision, reason = configured, "as Accelerate was configured"
        elif native := _native_bf16(kind):
            precision, reason = "bf16", native
        else:
            precision, reason = "no", "no native bf16 on this device"
    if precision not in ("no", "bf16", "fp16"):
        raise UserError(f"mixed precision {precision!r} is not supported here", "give no, bf16 or fp16")
    if precision == "fp16" and kind == "cpu":
        raise UserError(
            f"mixed precision fp16 ({reason}): a CPU has no fp16 training", "give --mixed-precision bf16 or no"
        )
    if precision != "no" and kind == "mps":
        raise UserError(f"mixed precision {precision} ({reason}): only fp32 is supported on Apple MPS", "give no")
    return precision, reason


def _accelerate_precision() -> str | None:
    """What Accelerate's launcher or configuration file says, if it is a wish.

    `accelerate launch` exports "no" when nobody chose anything, so "no" says nothing. Without a launcher the default
    configuration file, as `accelerate config` writes it, is read.
    """
    value = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if value is None:
        value = getattr(accelerate_configuration()[1], "mixed_precision", None)
    return None if value in (None, "no") else str(value).lower()


def accelerate_configuration() -> tuple[Path, Any]:
    """Where Accelerate's default configuration file is or would be, and what it holds; None when there is none.

    Raises:
        UserError: it cannot be read.
    """
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    path = Path(default_config_file)
    if not path.is_file():
        return path, None
    try:
        return path, load_config_from_file(default_config_file)
    except Exception as error:  # a damaged YAML or JSON file raises almost anything
        raise UserError(
            f"{path}: not a readable Accelerate configuration ({error})",
            "run accelerate config again, or give --mixed-precision",
        ) from error


def _native_bf16(kind: str | None) -> str | None:
    """Why bf16 is native on this kind of device, or None where it is not."""
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return f"native: compute capability {major}.{minor}" if major >= 8 else None
    if kind == "cpu":
        capabilities = torch.cpu.get_capabilities()
        for name in ("amx_bf16", "avx512_bf16", "bf16"):  # the last is ARM's
            if capabilities.get(name):
                return f"native: {name.upper()}"
    return None


def _compiler(config: RunConfig, processes: int) -> TorchDynamoPlugin:
    """Inductor; on a GPU it also records CUDA graphs and replays them, which spares the host launching each kernel.

    Not where gradients are accumulated: one replay overwrites those of another
    (https://github.com/pytorch/pytorch/issues/169545). Nor where processes exchange them.
    """
    parts = getattr(config, "gradient_accumulation_steps", 1) * processes
    is_replayed = _accelerator_type() == "cuda" and not config.cpu and parts == 1
    return TorchDynamoPlugin(backend="inductor", mode="reduce-overhead" if is_replayed else "default")


def has_compiler() -> bool:
    """Whether torch finds a C++ compiler, which it compiles models for a CPU with."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return False
    return True


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return cpu_name()
    return device.type


def cpu_name() -> str:
    """The processor's model, as the operating system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: platform knows
    return platform.processor() or platform.machine()
