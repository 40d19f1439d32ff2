"""What a run must remember to go on as if nothing had happened: captured from it, and put back into it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from accelerate.utils import gather_object

from mnist_accel.config.settings import TrainConfig, settings
from mnist_accel.data.datasets import DataSet, fingerprint
from mnist_accel.files.checkpoint import CheckpointError
from mnist_accel.files.pth import first_line
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.training.events import EpochRecord, StepSums
from mnist_accel.training.loop import Best, Progress, Training


def identity(config: TrainConfig, machine: Hardware, dataset: DataSet) -> dict[str, Any]:
    """All that decides the result: two runs with the same identity take the same steps."""
    fields = [name for name, known in settings(TrainConfig).items() if known.decides_result]
    decided = {name: getattr(config, name) for name in fields}
    return decided | {"mixed_precision": machine.mixed_precision, "dataset": fingerprint(dataset)}


def environment(machine: Hardware) -> dict[str, Any]:
    """What bit-exactness depends on besides: the same run elsewhere differs by rounding or by its dropout."""
    return {
        "world_size": machine.world_size,
        "threads": machine.threads,
        "device": machine.device_name,
        "torch": str(torch.__version__),
    }


def capture(training: Training, progress: Progress, who: dict[str, Any]) -> dict[str, Any]:
    """The state of the run between two steps; the same on every process. Called on every process.

    Args:
        who: the run's `identity`.
    """
    machine = training.hardware
    device_type = machine.device.type
    mine = {
        "cpu": torch.get_rng_state(),
        "device": torch.get_device_module(device_type).get_rng_state() if device_type != "cpu" else None,
        "sums": None if progress.sums is None else progress.sums.table.cpu(),
        "samples": 0 if progress.sums is None else progress.sums.samples,
    }
    optimizer = training.optimizer.state_dict()
    scaler = machine.accelerator.scaler
    return {
        "identity": who,
        "environment": environment(machine),
        "epoch": progress.epoch,
        "step": progress.step,
        "samples_seen": progress.samples_seen(training),
        "epoch_seconds": progress.epoch_seconds,
        "history": [dataclasses.asdict(record) for record in progress.history],
        "best": None if progress.best is None else dataclasses.asdict(progress.best),
        "model": training.module.state_dict(),
        "average": None if training.average is None else training.average.module.state_dict(),
        "optimizer": optimizer["state"],
        "scaler": None if scaler is None else scaler.state_dict(),
        "processes": gather_object([mine]),
    }


def restore(training: Training, state: dict[str, Any], who: dict[str, Any]) -> Progress:
    """Put a captured state back; the place from which to go on. Called on every process.

    On another number of processes each draws other dropout; everything else goes on as it was.

    Raises:
        CheckpointError: the state is of another configuration or data set, or does not fit the model.
    """
    _require_plain(state.get("identity"))
    _require_plain(state.get("environment"))
    differences = _differences(state["identity"], who)
    if differences:
        raise CheckpointError(
            f"the checkpoint is of another run: {'; '.join(differences)}",
            "give the settings it was made with, another --output-dir, or --resume never",
        )
    machine = training.hardware
    try:
        _require_form(training, state)
        training.module.load_state_dict(state["model"])
        if training.average:
            training.average.module.load_state_dict(state["average"])
        groups = training.optimizer.state_dict()["param_groups"]  # settings come from the configuration
        training.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        if state["scaler"] is not None:
            machine.accelerator.scaler.load_state_dict(state["scaler"])
        sums = None
        if len(state["processes"]) == machine.world_size:
            mine = state["processes"][machine.rank]
            torch.set_rng_state(mine["cpu"])
            if mine["device"] is not None and machine.device.type != "cpu":
                torch.get_device_module(machine.device.type).set_rng_state(mine["device"])
            if mine["sums"] is not None:
                sums = StepSums(mine["sums"].to(machine.device), mine["samples"])
        elif state["processes"][0]["sums"] is not None:
            total = torch.stack([process["sums"] for process in state["processes"]]).sum(dim=0)
            samples = sum(process["samples"] for process in state["processes"])
            if not machine.is_main:  # one process brings in what all had summed
                total, samples = torch.zeros_like(total), 0
            sums = StepSums(total.to(machine.device), samples)
        return Progress(
            epoch=state["epoch"],
            step=state["step"],
            sums=sums,
            epoch_seconds=state["epoch_seconds"],
            history=[EpochRecord(**record) for record in state["history"]],
            best=None if state["best"] is None else Best(**state["best"]),
        )
    except Exception as error:  # what another program has written can raise almost anything
        raise CheckpointError(
            f"the checkpoint does not fit this program ({first_line(error)})", "start anew with --resume never"
        ) from error


def _require_form(training: Training, state: dict[str, Any]) -> None:
    """Raise ValueError where values are not of the types and shapes that `capture` writes."""
    steps = training.steps_per_epoch

    def require(right: bool, name: str) -> None:
        if not right:
            raise ValueError(f"{name} is not what it should be")

    def is_tensor_like(value: Any, shape: torch.Size) -> bool:
        return isinstance(value, torch.Tensor) and value.shape == shape

    require(isinstance(state["epoch"], int) and 0 <= state["epoch"] <= training.config.epochs, "epoch")
    require(isinstance(state["step"], int) and 0 <= state["step"] <= steps, "step")
    require(isinstance(state["epoch_seconds"], (int, float)), "epoch_seconds")
    parameters = list(training.module.parameters())
    optimizer = state["optimizer"]
    require(isinstance(optimizer, dict) and set(optimizer) in (set(), set(range(len(parameters)))), "optimizer")
    for number, moments in optimizer.items():
        require(set(moments) == {"step", "exp_avg", "exp_avg_sq"}, "optimizer")
        require(is_tensor_like(moments["step"], torch.Size()), "optimizer")
        for name in ("exp_avg", "exp_avg_sq"):
            require(is_tensor_like(moments[name], parameters[number].shape), "optimizer")
    require(len(state["history"]) == state["epoch"], "history")
    for record in state["history"]:
        require(all(value is None or isinstance(value, (int, float)) for value in record.values()), "history")
    require(isinstance(state["processes"], list) and len(state["processes"]) > 0, "processes")
    for process in state["processes"]:
        require(process["sums"] is None or is_tensor_like(process["sums"], torch.Size([3, steps])), "sums")
        require((process["sums"] is None) == (state["step"] == 0), "sums")
        require(isinstance(process["samples"], int), "samples")
    if state["best"] is not None:
        require(isinstance(state["best"], dict) and isinstance(state["best"]["weights"], dict), "best")
        expected = {name: tensor.shape for name, tensor in training.module.state_dict().items()}
        found = {name: tensor.shape for name, tensor in state["best"]["weights"].items()}
        require(expected == found, "best")
        require(isinstance(state["best"]["epoch"], int) and isinstance(state["best"]["loss"], float), "best")


def environment_changes(state: dict[str, Any], machine: Hardware) -> list[str]:
    """What is different here from where the state was captured."""
    return _differences(state["environment"], environment(machine))


def _require_plain(facts: Any) -> None:
    """Raise where facts to be compared and shown are not short, plain values by name."""
    plain = isinstance(facts, dict) and all(
        isinstance(name, str) and (value is None or isinstance(value, (str, int, float))) and len(str(value)) < 10_000
        for name, value in facts.items()
    )
    if not plain:
        raise CheckpointError("the checkpoint does not say which run it is of", "start anew with --resume never")


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    return [
        f"{name} was {there.get(name)}, is {here.get(name)}"
        for name in sorted({*there, *here})
        if type(there.get(name)) is not type(here.get(name)) or there.get(name) != here.get(name)
    ]
