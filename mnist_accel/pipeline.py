"""From uint8 images in memory to the network's input: gathered by index and normalised where the network is."""

from __future__ import annotations

import torch
from torch import Tensor

from mnist_accel.data import Digits

MEAN, STD = 0.1307, 0.3081
"""Of MNIST's training pixels scaled to 0 … 1; https://github.com/pytorch/examples/tree/main/mnist."""


class InputPipeline:
    """A data set on the device, from which any batch is one gather away; no per-sample Python, no host sync.

    Args:
        digits: images uint8 (N, 28, 28), labels int64 (N,).
        device: where the batches are wanted; the whole data set is kept there.
        dtype: of the batches; uint8 leaves the pixels as they are, for models that normalise by themselves.
    """

    def __init__(self, digits: Digits, device: torch.device, dtype: torch.dtype) -> None:
        self.images = torch.tensor(digits.images, device=device).unsqueeze(1)  # uint8 (N, 1, 28, 28)
        self.labels = torch.tensor(digits.labels, device=device)  # int64 (N,)
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        return self.labels.device

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 1, 28, 28) and labels (B,) of the samples at `indices` (B,), on the device."""
        images = self.images[indices]
        return images if self.dtype == torch.uint8 else normalise(images, self.dtype), self.labels[indices]


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 pixels of any shape as (pixel / 255 - mean) / std."""
    return images.to(dtype).mul_(1 / (255 * STD)).sub_(MEAN / STD)
