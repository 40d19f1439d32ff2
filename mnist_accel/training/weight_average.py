"""An exponential moving average of the weights over the steps, which generalises better than the last step's."""

from __future__ import annotations

import copy

import torch
from torch import nn


class WeightAverage:
    """Averages a model's weights and running statistics; no wait for the device.

    Args:
        decay: share of the old average that stays at each step; less in the first steps, which forgets the
            random first weights.

    Attributes:
        module: a copy of the model with the averages.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step `step`, counted from 0 over all epochs."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = [], []
        for average, value in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if value.is_floating_point():
                averages.append(average)
                values.append(value.detach())
            else:  # batch normalisation's number of batches
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)
