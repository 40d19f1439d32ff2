"""The loss of a batch."""

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

SURE = 0.999
"""Label smoothing asks for logits that give the label this probability."""


def summed_loss(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Sum () of the cross entropies of logits (B, classes) and labels (B,) in nats, with label smoothing.

    Label smoothing (C. Szegedy et al., 2015) makes the result more accurate, but all probabilities too low: with 0.1,
    the best for a certain label of ten is 0.91. So logits are scaled down here, and the network learns larger ones.
    """
    if label_smoothing:
        classes = logits.shape[1]
        logits = logits * (_margin(label_smoothing, classes) / _margin(1 - SURE, classes))
    return cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)


def mean_for_all_processes(loss: Tensor, batch_size: int, world_size: int) -> Tensor:
    """The summed loss () of one part of a global batch, scaled for the backward pass.

    The exchange averages gradients over the processes. With this factor the result is the mean over the global batch.
    The factor is NaN where the loss is not finite, so that every process sees it in its gradients.
    """
    return loss * (world_size / batch_size + 0 * loss.detach())


def _margin(label_smoothing: float, classes: int) -> float:
    """The logit of the label minus any other, where the loss is lowest."""
    return math.log(1 + classes * (1 - label_smoothing) / label_smoothing)
