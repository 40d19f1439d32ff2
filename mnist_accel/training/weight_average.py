"""An exponential moving average of the weights over the steps, which generalises better than the last weights.

Not torch's AveragedModel: in each update it compares a counter that lies on the device, and so waits for a GPU.
"""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Averages a model's parameters and buffers, without waiting for the device.

    Args:
        module: the model whose weights are averaged.
        decay: share of the old average that each step keeps. It is smaller in the first steps, so that the average
            forgets the random initial weights.

    Attributes:
        module: a copy of the model that holds the average.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Add the weights after optimizer step `step`, counted from 0 over all epochs."""
        pairs = list(zip(self.module.state_dict().values(), module.state_dict().values(), strict=True))
        for average, value in pairs:
            if not value.is_floating_point():  # the number of batches that batch normalisation has seen
                average.copy_(value)
        averages = [average for average, _ in pairs if average.is_floating_point()]
        values = [value.detach() for _, value in pairs if value.is_floating_point()]
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(averages, values, step)
