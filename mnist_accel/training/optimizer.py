"""The optimizer, and its learning rate as a function of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from mnist_accel.config.settings import TrainConfig

FIRST_SHARE, LAST_SHARE = 1 / 25, 1 / 25e4
"""Of the peak learning rate, where a cycle begins and ends; those of torch's OneCycleLR."""


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam with all parameters in one fused update (Kingma & Ba, 2015; ε 1e-8)."""
    return torch.optim.Adam(model.parameters(), lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Of optimizer step `step` of `steps`, over all epochs.

    "one-cycle" rises along a cosine for the share `warmup` of the steps, then falls along one (L. N. Smith & N. Topin,
    2019); as torch's OneCycleLR, without its cycling momentum.
    """
    if config.schedule == "constant":
        return config.lr
    rising = config.warmup * steps - 1
    if step < rising:
        start, end, done = FIRST_SHARE, 1.0, step / rising
    else:
        start, end, done = 1.0, LAST_SHARE, (step - rising) / (steps - 1 - rising)
    return config.lr * (end + (start - end) * (1 + math.cos(math.pi * done)) / 2)
