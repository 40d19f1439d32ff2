"""The optimizer."""

from __future__ import annotations

import torch
from torch import nn

from mnist_accel.config import TrainConfig


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Adam with all parameters in one fused update, as Kingma & Ba's defaults have it (β 0.9, 0.999; ε 1e-8)."""
    return torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
