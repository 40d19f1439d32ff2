"""Input normalisation: uint8 pixels to the numbers that the networks take."""

import torch
from torch import Tensor

MEAN, STD = 0.1307, 0.3081
"""Of MNIST's training pixels scaled to 0 … 1; https://github.com/pytorch/examples/tree/main/mnist."""


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (pixel / 255 - MEAN) / STD in `dtype` for uint8 images of any shape."""
    return images.to(dtype).mul_(1 / (255 * STD)).sub_(MEAN / STD)
