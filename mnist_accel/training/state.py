"""The training state saved in a checkpoint: captured between two steps, and restored into a prepared run."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from torch import Tensor

from mnist_accel.config.settings import TrainConfig, settings
from mnist_accel.data.digits import DataSet, fingerprint
from mnist_accel.errors import printable
from mnist_accel.files.checkpoint import Checkpoint, CheckpointError
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.training.events import EpochRecord, StepSums
from mnist_accel.training.setup import Best, Progress, Setup

Facts = dict[str, str | int | float | bool | None]
ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
START_ANEW = "start anew with --resume never"


class BestEpoch(BaseModel):
    """The epoch with the lowest validation loss; its weights are among the tensors."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    epoch: int
    loss: float


class SavedState(BaseModel):
    """Everything in a checkpoint but its tensors.

    Attributes:
        identity: the settings and data that decide the result; see `identity`.
        environment: what bit-exactness depends on besides; see `environment`.
        epoch: number of finished epochs.
        step: number of finished steps of the current epoch.
        samples_seen: samples trained on, over all epochs and processes.
        epoch_seconds: time of the training steps of the current epoch so far.
        history: records of the finished epochs.
        scaler: state of fp16's gradient scaler, or None.
        samples: samples of the current epoch that each process has added to its sums, by rank.
    """

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    format: Literal["mnist-accel training state"] = "mnist-accel training state"
    identity: Facts
    environment: Facts
    epoch: NonNegativeInt
    step: NonNegativeInt
    samples_seen: NonNegativeInt
    epoch_seconds: Annotated[float, Field(ge=0, lt=1e9)]
    history: list[EpochRecord]
    best: BestEpoch | None
    scaler: dict[str, float] | None
    samples: Annotated[list[NonNegativeInt], Field(min_length=1)]


def identity(config: TrainConfig, hardware: Hardware, dataset: DataSet) -> Facts:
    """The settings and data that decide the result: two runs with the same identity make the same steps."""
    names = [name for name, setting in settings(TrainConfig).items() if setting.decides_result]
    decided = {name: getattr(config, name) for name in names}
    return decided | {"mixed_precision": hardware.mixed_precision, "dataset": fingerprint(dataset)}


def environment(setup: Setup) -> Facts:
    """What bit-exactness depends on besides the identity: a change alters rounding or dropout, but no promise else."""
    return {
        "world_size": setup.hardware.world_size,
        "threads": setup.hardware.threads,
        "device": setup.hardware.device_name,
        "exchange": setup.exchange or "none",
        "speedups": setup.hardware.speedups,
        "compile": setup.hardware.compiled,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def capture(setup: Setup, progress: Progress, who: Facts) -> tuple[dict[str, Tensor], bytes]:
    """The tensors and the JSON of a checkpoint; the same on every process. Called on every process.

    Args:
        setup: the run.
        progress: its position.
        who: the `identity` of the run.
    """
    hardware, sums = setup.hardware, progress.sums
    is_cpu = hardware.device.type == "cpu"
    processes = hardware.gather(
        {
            "random": torch.get_rng_state(),
            "device_random": None if is_cpu else torch.get_device_module(hardware.device.type).get_rng_state(),
            "sums": None if sums is None else sums.table.cpu(),
        }
    )
    tensors: dict[str, Tensor] = {"step_losses": torch.from_numpy(progress.step_losses)}
    for rank, process in enumerate(processes):
        tensors |= {f"{name}.{rank}": value for name, value in process.items() if value is not None}
    for prefix, weights in _weights(setup, progress.best).items():
        tensors |= {f"{prefix}.{name}": tensor for name, tensor in weights.items()}
    for number, state in setup.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": state[name] for name in ADAM_STATE}
    scaler = hardware.accelerator.scaler
    here = min(progress.step * setup.config.batch_size, len(setup.train_data))
    saved = SavedState(
        identity=who,
        environment=environment(setup),
        epoch=progress.epoch,
        step=progress.step,
        samples_seen=progress.epoch * len(setup.train_data) + here,
        epoch_seconds=progress.epoch_seconds,
        history=progress.history,
        best=None if progress.best is None else BestEpoch(epoch=progress.best.epoch, loss=progress.best.loss),
        scaler=None if scaler is None else scaler.state_dict(),
        samples=hardware.gather(0 if sums is None else sums.samples),
    )
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return tensors, saved.model_dump_json(indent=1).encode()


def restore(setup: Setup, checkpoint: Checkpoint, who: Facts) -> tuple[Progress, list[str]]:
    """Put the state of a checkpoint into `setup`. Called on every process.

    On another number of processes, each process draws other dropout; everything else goes on as it was.

    Returns:
        The position of the run, and the differences of the environment, which may change the last bits.

    Raises:
        CheckpointError: the checkpoint is of another configuration or data set, or does not fit the model.
    """
    saved = _parse(checkpoint)
    _require_same_run(saved, who)
    _require_consistent(saved, setup, checkpoint.path)
    tensors = checkpoint.tensors
    _require_shapes(tensors, _expected(setup, saved), checkpoint.path)
    setup.module.load_state_dict(_with_prefix(tensors, "model"))
    if setup.weight_average:
        setup.weight_average.module.load_state_dict(_with_prefix(tensors, "average"))
    _restore_optimizer(setup, tensors)
    try:
        if saved.scaler is not None and setup.hardware.accelerator.scaler is not None:
            setup.hardware.accelerator.scaler.load_state_dict(saved.scaler)
        if len(saved.samples) == setup.hardware.world_size:
            _restore_random_numbers(setup.hardware, tensors)
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint.path}: {printable(error)}", START_ANEW) from error
    best = None
    if saved.best is not None:
        best = Best(saved.best.epoch, saved.best.loss, _with_prefix(tensors, "best"))
    progress = Progress(
        epoch=saved.epoch,
        step=saved.step,
        sums=_restored_sums(setup.hardware, saved, tensors),
        epoch_seconds=saved.epoch_seconds,
        history=list(saved.history),
        step_losses=tensors["step_losses"].numpy(),
        best=best,
    )
    return progress, _differences(saved.environment, environment(setup))


def _parse(checkpoint: Checkpoint) -> SavedState:
    try:
        return SavedState.model_validate_json(checkpoint.state)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its JSON"
        raise CheckpointError(
            f"{checkpoint.path}: not a training state of this version ({printable(where, 60)}: {first['msg']})",
            START_ANEW,
        ) from error


def _require_same_run(saved: SavedState, who: Facts) -> None:
    """Raise unless the identities are the same. More epochs are allowed where no step depends on their number."""
    differences = _differences(saved.identity, who)
    if not differences:
        return
    message = f"the checkpoint is of another run: {'; '.join(differences)}"
    hint = "give the settings it was made with, another --output-dir, or --resume never"
    if all(difference.startswith("epochs ") for difference in differences):
        if who["schedule"] == "constant" and isinstance(who["epochs"], int) and who["epochs"] >= saved.epoch:
            return
        hint = (
            f"{saved.epoch} epochs are finished already; give at least as many"
            if who["schedule"] == "constant"
            else "the learning rate of each step depends on the number of epochs, so give the same number"
        )
    raise CheckpointError(message, hint)


def _require_consistent(saved: SavedState, setup: Setup, path: Any) -> None:
    """Raise where values of the right types contradict each other."""
    problems = {
        "epoch": saved.epoch > setup.config.epochs,
        "step": saved.step > setup.steps_per_epoch,
        "history": len(saved.history) != saved.epoch
        or any(record.epoch != number for number, record in enumerate(saved.history, start=1)),
        "best": saved.best is not None and not 1 <= saved.best.epoch <= saved.epoch,
        "samples": max(saved.samples) > len(setup.train_data) or len(saved.samples) > 100_000,
    }
    wrong = [name for name, is_wrong in problems.items() if is_wrong]
    if wrong:
        raise CheckpointError(f"{path}: {', '.join(wrong)} in its state cannot be right", START_ANEW)


def _weights(setup: Setup, best: Best | None) -> dict[str, Mapping[str, Tensor]]:
    """The weights that a checkpoint holds, by the prefix of their names."""
    weights: dict[str, Mapping[str, Tensor]] = {"model": setup.module.state_dict()}
    if setup.weight_average:
        weights["average"] = setup.weight_average.module.state_dict()
    if best:
        weights["best"] = best.weights
    return weights


def _expected(setup: Setup, saved: SavedState) -> dict[str, Tensor]:
    """Tensors of the shapes and types that the checkpoint must hold, without the random states of devices."""
    weights = _weights(setup, None)
    if saved.best is not None:
        weights["best"] = setup.final_module.state_dict()
    expected = {f"{prefix}.{name}": tensor for prefix, group in weights.items() for name, tensor in group.items()}
    for number, parameter in enumerate(setup.module.parameters()):
        moments = {"step": torch.empty(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        expected |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
    for rank in range(len(saved.samples)):
        expected[f"random.{rank}"] = torch.get_rng_state()
        if saved.step:
            dtype = torch.float32 if setup.hardware.device.type == "mps" else torch.float64
            expected[f"sums.{rank}"] = torch.empty(3, setup.steps_per_epoch, dtype=dtype)
    expected["step_losses"] = torch.empty(saved.epoch * setup.steps_per_epoch)
    return expected


def _require_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Any) -> None:
    found = {
        name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items() if not name.startswith("device_random.")
    }
    wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in expected.items()}
    wrong = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
    if wrong:
        raise CheckpointError(
            f"{path}: its tensors do not fit this program ({printable(', '.join(wrong[:3]), 200)})", START_ANEW
        )


def _restore_optimizer(setup: Setup, tensors: Mapping[str, Tensor]) -> None:
    state = {}
    for number, parameter in enumerate(setup.module.parameters()):
        saved = {name: tensors[f"optimizer.{number}.{name}"] for name in ADAM_STATE}
        # The fused update needs the moments in the memory format of the parameters.
        moments = {name: torch.empty_like(parameter).copy_(saved[name]) for name in ADAM_STATE[1:]}
        state[number] = {"step": saved["step"], **moments}
    groups = setup.optimizer.state_dict()["param_groups"]  # settings come from the configuration
    setup.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _restore_random_numbers(hardware: Hardware, tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors[f"random.{hardware.rank}"])
    on_device = tensors.get(f"device_random.{hardware.rank}")
    if on_device is not None and hardware.device.type != "cpu":
        torch.get_device_module(hardware.device.type).set_rng_state(on_device)


def _restored_sums(hardware: Hardware, saved: SavedState, tensors: Mapping[str, Tensor]) -> StepSums | None:
    """The sums of this process. On another number of processes, the main process takes those of all."""
    if saved.step == 0:
        return None
    tables = [tensors[f"sums.{rank}"] for rank in range(len(saved.samples))]
    if len(tables) == hardware.world_size:
        table, samples = tables[hardware.rank], saved.samples[hardware.rank]
    elif hardware.is_main:
        table, samples = torch.stack(tables).sum(dim=0), sum(saved.samples)
    else:
        table, samples = torch.zeros_like(tables[0]), 0
    return StepSums(table.to(hardware.device), samples)


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _differences(there: Facts, here: Facts) -> list[str]:
    return [
        f"{name} was {there.get(name)}, is {here.get(name)}"
        for name in sorted({*there, *here})
        if type(there.get(name)) is not type(here.get(name)) or there.get(name) != here.get(name)
    ]
