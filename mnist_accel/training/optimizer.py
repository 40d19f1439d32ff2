"""The optimizer, its learning rate, the check for bad numbers, and the moving average of the weights."""

import copy
import math
from inspect import unwrap

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import UserError
from mnist_accel.hardware.accelerator import Hardware


class Adam(torch.optim.Adam):
    """torch's Adam without wrappers for torch.compile, which take a second to import. Only the model is compiled."""

    add_param_group = unwrap(torch.optim.Adam.add_param_group)
    zero_grad = unwrap(torch.optim.Adam.zero_grad)
    state_dict = unwrap(torch.optim.Adam.state_dict)
    load_state_dict = unwrap(torch.optim.Adam.load_state_dict)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


def build_optimizer(model: nn.Module, config: TrainConfig) -> Adam:
    """Adam with all parameters in one fused update (Kingma & Ba, 2015; ε 1e-8)."""
    return Adam(model.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """The learning rate of optimizer step `step`, counted from 0 over all epochs, of `steps`.

    "one-cycle" rises along a cosine for the share `warmup` of the steps, then falls along another (L. N. Smith &
    N. Topin, 2019), as torch's OneCycleLR does without cycling the momentum, from 1/25 of the peak to 1/250,000 of it.
    Where too few steps are left to rise, the first step has the peak rate.
    """
    if config.schedule == "constant":
        return config.lr
    peak_step = max(0.0, config.warmup * steps - 1)
    if step < peak_step:
        start, end, done = 1 / 25, 1.0, step / peak_step
    else:
        start, end, done = 1.0, 1 / 25e4, (step - peak_step) / ((steps - 1 - peak_step) or 1.0)
    return config.lr * (end + (start - end) * (1 + math.cos(math.pi * done)) / 2)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use `lr` for all parameters in the next step."""
    for group in optimizer.param_groups:
        # A recorded step reads the rate from a tensor.
        group["lr"] = group["lr"].fill_(lr) if isinstance(group["lr"], Tensor) else lr


class NumbersError(UserError):
    """A loss, gradient or weight is infinite or not a number."""

    exit_code = 1
    is_shared = True


class BadNumbers:
    """Looks for infinite numbers and NaN in each step. From the first one on, the optimizer leaves the weights alone.

    `found` is 1 since a step met one, else 0; a scalar on the device, so that no step waits for the device.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hardware: Hardware) -> None:
        self.optimizer = optimizer
        self.found = torch.zeros((), device=hardware.device)
        self.has_scaler = hardware.accelerator.scaler is not None
        if not self.has_scaler:
            # torch's fused optimizers skip the update where this attribute, which gradient scalers set, is 1.
            optimizer.found_inf = self.found  # type: ignore[attr-defined]

    def check(self, loss: Tensor) -> Tensor:
        """Look at the gradients, or with fp16's gradient scaler at the loss () of this step; return `found`.

        Gradients that overflow in fp16 are usual, and the scaler skips their steps; a loss that is not finite is not.
        """
        figure = loss
        if not self.has_scaler:
            parameters = self.optimizer.param_groups[0]["params"]
            figure = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        return self.found.logical_or_(~figure.isfinite())


class WeightAverage:
    """Exponential moving average of a model's parameters and buffers, which generalises better than the last weights.

    Each step keeps the share `decay` of the old average, less in the first steps, so that the average forgets the
    random initial weights. Not torch's AveragedModel, which compares a counter on the device, and so waits for a GPU.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Add the weights after optimizer step `step`, counted from 0 over all epochs."""
        averages, values = [], []
        for average, value in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if value.is_floating_point():
                averages.append(average)
                values.append(value.detach())
            else:  # the number of batches that batch normalisation has seen
                average.copy_(value)
        get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))(averages, values, step)
