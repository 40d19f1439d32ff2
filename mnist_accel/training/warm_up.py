"""Training steps that are taken before the clock starts, and undone."""

from collections.abc import Iterator

import torch
from torch import Tensor

from mnist_accel.training.loop import train_step
from mnist_accel.training.setup import Progress, Setup

STEPS = 5  # of each batch size: enough to choose kernels, to record the step where that is asked for, and to replay it


def warm_up(setup: Setup, progress: Progress) -> None:
    """Take a few steps and put everything back: on a GPU the first ones are slow, as it loads and chooses kernels."""
    device, scaler = setup.hardware.device, setup.hardware.accelerator.scaler
    before = {id(tensor): tensor.clone() for tensor in state_tensors(setup)}
    scale = scaler.state_dict() if scaler else {}
    samples, size = len(setup.train_data), setup.config.batch_size
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        for batch_size in {min(size, samples), samples % size or size}:
            batch = torch.arange(batch_size, device=device)
            for _ in range(STEPS):
                train_step(setup, batch, progress.epoch, 0, setup.empty_sums(1))
    with torch.no_grad():
        for tensor in state_tensors(setup):
            # The optimizer makes its moments in its first step, and they start at 0.
            tensor.copy_(before[id(tensor)]) if id(tensor) in before else tensor.zero_()
    if scaler:
        scaler.load_state_dict(scale)


def state_tensors(setup: Setup) -> Iterator[Tensor]:
    """All tensors that a step changes in place."""
    for module in (setup.module, setup.final_module):
        yield from module.state_dict(keep_vars=True).values()
    for moments in setup.optimizer.state.values():
        yield from moments.values()
    yield setup.bad_numbers.found
