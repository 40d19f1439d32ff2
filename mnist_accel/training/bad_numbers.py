"""Keeps numbers that are infinite or not a number away from the weights, without waiting for the device."""

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from mnist_accel.errors import UserError
from mnist_accel.hardware.accelerator import Hardware


class NumbersError(UserError):
    """A loss, gradient or weight is infinite or not a number."""

    exit_code = 1
    is_shared = True


class BadNumbers:
    """Looks for bad numbers in each step. From the first one on, the optimizer leaves the weights as they are.

    Attributes:
        found: 1 since a step met a bad number, else 0; a scalar on the device.
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
        if self.has_scaler:
            self.found.logical_or_(~loss.isfinite())
        else:
            parameters = self.optimizer.param_groups[0]["params"]
            norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
            self.found.logical_or_(~norm.isfinite())
        return self.found


def mean_for_all_processes(loss: Tensor, batch_size: int, world_size: int) -> Tensor:
    """The summed loss () of one part of a global batch, scaled for the backward pass.

    The exchange averages gradients over the processes. With this factor the result is the mean over the global batch.
    The factor is NaN where the loss is not finite, so that every process sees it in its gradients.
    """
    return loss * (world_size / batch_size + 0 * loss.detach())
