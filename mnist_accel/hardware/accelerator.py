"""The devices, processes, threads and precision of a run, and what its processes do together."""

import atexit
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, is_initialized
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, TorchDynamoPlugin
from torch import distributed

from mnist_accel.errors import UserError
from mnist_accel.files.untrusted import refusing
from mnist_accel.hardware import peers
from mnist_accel.hardware.cores import available_cores, cpu_name, has_compiler, launched_world_size, local_world_size
from mnist_accel.hardware.peers import Heartbeats
from mnist_accel.speed import keep_freed_memory, start_threads

Result = TypeVar("Result")
PATIENCE = timedelta(hours=1)  # for work of one process that the others wait for, such as writing to a slow disk


@dataclass(frozen=True)
class Hardware:
    """The hardware of a run, and the communication between its processes."""

    accelerator: Accelerator
    device: torch.device
    rank: int
    world_size: int
    is_main: bool
    threads: int
    mixed_precision: str
    precision_reason: str  # in words for people
    control: distributed.ProcessGroup | None  # in which processes agree on things; on the CPU whatever device they use
    heartbeats: Heartbeats | None  # the reports of several processes, which name one that is lost

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return cpu_name() if self.device.type == "cpu" else self.device.type

    def together(self, work: Callable[[], Result]) -> Result:
        """Do `work` on every process. If some raise a UserError, all raise that of the lowest rank: none waits."""
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
    is_recorded: bool = False,
    accumulation_steps: int = 1,
    speedups: bool = True,
) -> Hardware:
    """Set up Accelerate. The arguments are those of `config.settings`; `is_recorded` is `wants_cuda_graph`."""
    kind = (None if cpu else accelerator_type()) or "cpu"
    patience = timedelta(seconds=timeout)
    _require_support(kind, processes, compiled)
    mixed_precision, reason = choose_precision(mixed_precision, kind, dtype)
    heartbeats = peers.join("gloo" if kind == "cpu" else "nccl", patience) if kind in ("cpu", "cuda") else None
    plugin = _compiler(kind, accumulation_steps, is_recorded=is_recorded) if compiled else None
    if is_recorded and kind == "cuda" and local_world_size() == 1:
        # Work on the default stream cannot be recorded. The stream is set before the model is made, so that a backward
        # pass that is recorded never waits for the default stream.
        torch.cuda.set_stream(torch.cuda.Stream())
    accelerator = _accelerator(kind, mixed_precision, patience, plugin)
    threads = threads or max(1, available_cores() // local_world_size())
    start_threads(threads, speedups and kind == "cpu" and local_world_size() == 1)
    keep_freed_memory(speedups)
    control = None
    if accelerator.num_processes > 1:
        atexit.register(peers.leave)  # for callers in Python
        control = cast("distributed.ProcessGroup", distributed.new_group(backend="gloo", timeout=patience))
    place = (accelerator.device, accelerator.process_index, accelerator.num_processes, accelerator.is_main_process)
    return Hardware(accelerator, *place, threads, mixed_precision, reason, control, heartbeats)


def _require_support(kind: str, processes: int | None, compiled: bool) -> None:
    """Raise a UserError where this machine or this process cannot do what was asked for."""
    if processes and processes > 1 and launched_world_size() is None:
        hint = "use the command line's --processes, torchrun or accelerate.notebook_launcher"
        raise UserError(f"processes {processes}: one Python call is one process", hint)
    if kind != "cpu" and local_world_size() > gpu_count():
        problem = f"{local_world_size()} processes were started here, but this machine has {gpu_count()} GPUs"
        raise UserError(problem, "start one for each GPU, or add --cpu")
    if compiled and kind == "cpu" and not has_compiler():
        raise UserError("--compile needs a C++ compiler on a CPU, and none was found", "install g++ or clang")


def _accelerator(kind: str, mixed_precision: str, timeout: timedelta, plugin: TorchDynamoPlugin | None) -> Accelerator:
    if is_initialized() and not hasattr(AcceleratorState(), "made_by_mnist_accel"):
        raise UserError("this program has set up Accelerate itself", "run this in a process of its own")
    # Forget an earlier run in this process, but not a PartialState that the caller made. Both functions are private. A
    # public one that changes Accelerate's settings would replace them; 1.15 has none.
    AcceleratorState._reset_state(reset_partial_state=is_initialized())  # noqa: SLF001 see above
    GradientState._reset_state()  # noqa: SLF001 see above
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


def _compiler(kind: str, accumulation_steps: int, *, is_recorded: bool = False) -> TorchDynamoPlugin:
    """Inductor; with CUDA graphs where one GPU computes whole batches, unless whole steps are recorded anyway."""
    # Of accumulated gradients, one replay overwrites those of another: https://github.com/pytorch/pytorch/issues/169545
    is_whole_batch = accumulation_steps * (launched_world_size() or 1) == 1
    mode = "reduce-overhead" if kind == "cuda" and is_whole_batch and not is_recorded else "default"
    # A recording has one batch size, and code for that size alone is faster.
    return TorchDynamoPlugin(backend="inductor", mode=mode, dynamic=False if is_recorded else None)


def accelerator_type() -> str | None:
    """Type of the accelerator that torch uses here, such as cuda or mps; None without one."""
    device = torch.accelerator.current_accelerator(check_available=True)
    return device.type if device else None


def gpu_count() -> int:
    """The number of accelerators that torch can use on this machine."""
    return torch.accelerator.device_count() if accelerator_type() else 0


def choose_precision(wanted: str, kind: str | None, dtype: str = "float32") -> tuple[str, str]:
    """No, bf16 or fp16 for a device of a kind (cpu, cuda, mps), and why. UserError if it does not support `wanted`."""
    if dtype == "float64":
        return "no", "float64 weights"
    precision, reason = wanted, "as asked"
    if wanted == "auto":
        precision, reason = native_precision(kind)
        # What `accelerate launch` or else Accelerate's file asks for. The launcher exports "no" if nothing was chosen.
        configured = os.environ.get("ACCELERATE_MIXED_PRECISION")
        if configured is None:
            configured = getattr(accelerate_configuration()[1], "mixed_precision", None)
        if configured not in (None, "no"):
            precision, reason = str(configured).lower(), "as Accelerate was configured"
    if precision not in ("no", "bf16", "fp16"):
        raise UserError(f"mixed precision {precision!r} is not supported", "give no, bf16 or fp16")
    if precision == "fp16" and kind == "cpu":
        raise UserError(f"mixed precision fp16 ({reason}): a CPU does not support it", "give bf16 or no")
    if precision != "no" and kind == "mps":
        raise UserError(f"mixed precision {precision} ({reason}): Apple MPS supports only fp32", "give no")
    return precision, reason


def native_precision(kind: str | None) -> tuple[str, str]:
    """`bf16` where this kind of device computes in it natively, otherwise `no`; and why."""
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability()
        if major >= 8:
            return "bf16", f"native: compute capability {major}.{minor}"
    if kind == "cpu":
        for name in ("amx_bf16", "avx512_bf16", "bf16"):  # the last is ARM's
            if torch.cpu.get_capabilities().get(name):
                return "bf16", f"native: {name.upper()}"
    return "no", "no native bf16 on this device"


def accelerate_configuration() -> tuple[Path, Any]:
    """The path of Accelerate's default configuration file, and its content; None if there is no such file."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    path = Path(default_config_file)
    if not path.is_file():
        return path, None
    hint = "run accelerate config again, or give --mixed-precision"
    with refusing(UserError, f"{path}: not a readable Accelerate configuration", hint):
        return path, load_config_from_file(default_config_file)
