"""The training state saved in a checkpoint: captured between two steps, and restored into a prepared run."""

import functools
import itertools
from collections.abc import Mapping

import numpy as np
import torch
from pydantic import BaseModel, Field, NonNegativeInt
from torch import Tensor

from mnist_accel.config.settings import TrainConfig, settings
from mnist_accel.data.digits import DataSet, fingerprint
from mnist_accel.files.checkpoint import Checkpoint, CheckpointError
from mnist_accel.files.untrusted import refusing
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.models import own_network
from mnist_accel.training.events import EpochRecord
from mnist_accel.training.setup import Progress, Setup, is_recorded

Facts = dict[str, str | int | float | bool | None]


class SavedState(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    """Everything in a checkpoint but its tensors; `step` and `epoch_seconds` are of the current epoch."""

    identity: Facts
    environment: Facts
    step: NonNegativeInt
    epoch_seconds: float = Field(ge=0, lt=1e9)
    history: list[EpochRecord]
    scaler: dict[str, float] | None


def identity(config: TrainConfig, hardware: Hardware, dataset: DataSet) -> Facts:
    """The settings and data that decide the result: two runs with the same identity make the same steps."""
    names = [name for name, setting in settings(TrainConfig).items() if setting.decides_result]
    decided = {name: getattr(config, name) for name in names}
    if ":" in config.model:
        decided["model_source"] = own_network.load_class(config.model)[1]
    return decided | {"mixed_precision": hardware.mixed_precision, "dataset": fingerprint(dataset)}


def environment(setup: Setup) -> Facts:
    """What bit-exactness depends on besides the identity: a change alters rounding or dropout, but no promise else."""
    hardware, config = setup.hardware, setup.config
    known: Facts = {"world_size": hardware.world_size, "threads": hardware.threads, "device": hardware.device_name}
    known |= {"exchange": setup.exchange or "none", "torch": str(torch.__version__), "numpy": np.__version__}
    return known | {"speedups": config.speedups, "compile": config.compile, "cuda_graph": is_recorded(config, hardware)}


def capture(setup: Setup, progress: Progress, who: Facts) -> tuple[dict[str, Tensor], bytes]:
    """The tensors and the JSON of a checkpoint of the run with the identity `who`. Called on every process."""
    hardware, scaler = setup.hardware, setup.hardware.accelerator.scaler
    own = {"random": torch.get_rng_state()}
    if hardware.device.type != "cpu":
        own["device_random"] = torch.get_device_module(hardware.device.type).get_rng_state()
    if progress.sums is not None:
        own["sums"] = progress.sums.cpu()
    groups = {f"process.{rank}": tensors for rank, tensors in enumerate(hardware.gather(own))}
    groups |= {f"optimizer.{number}": state for number, state in setup.optimizer.state_dict()["state"].items()}
    groups |= {"model": setup.module.state_dict(), "best": progress.best_weights}
    if setup.weight_average:
        groups["average"] = setup.weight_average.module.state_dict()
    tensors = {f"{group}.{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
    tensors["step_losses"] = torch.from_numpy(progress.step_losses)
    saved = SavedState(
        identity=who,
        environment=environment(setup),
        step=progress.step,
        epoch_seconds=progress.epoch_seconds,
        history=progress.history,
        scaler=None if scaler is None else scaler.state_dict(),
    )
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return tensors, saved.model_dump_json(indent=1).encode()


def restore(setup: Setup, checkpoint: Checkpoint, who: Facts) -> tuple[Progress, list[str]]:
    """Put the state of a checkpoint into `setup`; the position, and the differences of the environment.

    Called on every process. On another number of processes, each draws other dropout; everything else goes on as it
    was. Raises CheckpointError if the checkpoint is of another configuration or data set, or does not fit the model.
    """
    problem = f"{checkpoint.path}: its state does not fit this program"
    fitting = functools.partial(refusing, CheckpointError, problem, "start anew with --resume never")
    with fitting():
        saved = SavedState.model_validate_json(checkpoint.state)
    _require_same_run(saved, who)
    with fitting():
        return _restore(setup, saved, checkpoint.tensors), _differences(saved.environment, environment(setup))


def _require_same_run(saved: SavedState, who: Facts) -> None:
    """Raise unless the identities are the same. More epochs are allowed where no step depends on their number."""
    differences = _differences(saved.identity, who)
    hint = "give the settings it was made with, another --output-dir, or --resume never"
    if differences and all(difference.startswith("epochs ") for difference in differences):
        if who["schedule"] != "constant":
            hint = "the learning rate of each step depends on the number of epochs, so give the same number"
        elif int(str(who["epochs"])) >= len(saved.history):
            return
    if differences:
        raise CheckpointError(f"the checkpoint is of another run: {'; '.join(differences)}", hint)


def _restore(setup: Setup, saved: SavedState, tensors: Mapping[str, Tensor]) -> Progress:
    """Tensors are copied into tensors of the expected shape and type, which fails where they do not fit."""
    hardware, steps = setup.hardware, setup.steps_per_epoch
    if saved.step > steps:
        raise ValueError(f"step {saved.step} of {steps}")
    setup.module.load_state_dict(_group(tensors, "model"))
    if setup.weight_average:
        setup.weight_average.module.load_state_dict(_group(tensors, "average"))
    _restore_optimizer(setup, tensors)
    if hardware.accelerator.scaler:
        hardware.accelerator.scaler.load_state_dict(saved.scaler)
    step_losses = torch.empty(len(saved.history) * steps).copy_(tensors["step_losses"]).numpy()
    progress = Progress(saved.step, None, saved.epoch_seconds, saved.history, step_losses, _group(tensors, "best"))
    processes = list(itertools.takewhile(bool, (_group(tensors, f"process.{rank}") for rank in itertools.count())))
    is_same_number = len(processes) == hardware.world_size
    if saved.step:
        sums = [process["sums"] for process in processes]
        own = sums[hardware.rank] if is_same_number else torch.stack(sums).sum(dim=0) / hardware.world_size
        progress.sums = setup.empty_sums(steps).copy_(own)
    if is_same_number:
        process = processes[hardware.rank]
        torch.set_rng_state(process["random"])
        if "device_random" in process and hardware.device.type != "cpu":
            torch.get_device_module(hardware.device.type).set_rng_state(process["device_random"])
    return progress


def _restore_optimizer(setup: Setup, tensors: Mapping[str, Tensor]) -> None:
    state = {}
    for number, parameter in enumerate(setup.module.parameters()):
        if not parameter.requires_grad:  # a network of the user's own may have such
            continue
        saved = _group(tensors, f"optimizer.{number}")
        # The fused update needs the moments in the memory format of the parameters.
        moments = {name: torch.empty_like(parameter).copy_(saved[name]) for name in ("exp_avg", "exp_avg_sq")}
        state[number] = {"step": torch.tensor(float(saved["step"])), **moments}
    groups = setup.optimizer.state_dict()["param_groups"]  # settings come from the configuration
    setup.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _group(tensors: Mapping[str, Tensor], group: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{group}."): value for name, value in tensors.items() if name.startswith(f"{group}.")}


def _differences(there: Facts, here: Facts) -> list[str]:
    changed = [name for name in sorted({*there, *here}) if there.get(name) != here.get(name)]
    return [f"{name} was {there.get(name)}, is {here.get(name)}" for name in changed]
