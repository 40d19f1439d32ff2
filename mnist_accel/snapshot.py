"""What a run must remember to go on as if nothing had happened: captured from it, and put back into it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from accelerate.utils import gather_object

from mnist_accel.checkpoint import CheckpointError
from mnist_accel.config import TrainConfig, settings
from mnist_accel.data import DataSet, fingerprint
from mnist_accel.engine import Best, Progress, Training
from mnist_accel.hardware import Hardware
from mnist_accel.observers import EpochRecord, StepSums


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
    differences = _differences(state.get("identity"), who)
    if differences:
        raise CheckpointError(
            f"the checkpoint is of another run: {'; '.join(differences)}",
            "give the settings it was made with, another --output-dir, or --resume never",
        )
    machine = training.hardware
    try:
        training.module.load_state_dict(state["model"])
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
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        raise CheckpointError(f"the checkpoint does not fit this program ({error!r:.200})", "start anew") from error


def environment_changes(state: dict[str, Any], machine: Hardware) -> list[str]:
    """What is different here from where the state was captured."""
    return _differences(state.get("environment"), environment(machine))


def _differences(there: Any, here: dict[str, Any]) -> list[str]:
    there = there if isinstance(there, dict) else {}
    return [
        f"{name} was {there.get(name)}, is {here.get(name)}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
