"""Batches: images gathered by index, and normalised on the device of the network."""

import torch
from torch import Tensor

from mnist_accel.data.digits import Digits
from mnist_accel.models.normalisation import normalise


class InputPipeline:
    """A data set on a device. A batch is gathered by one indexing operation, without a Python loop over samples.

    Args:
        dtype: of the batches. With uint8, pixels are not normalised, for models that normalise their input.
    """

    def __init__(self, digits: Digits, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self.images = torch.tensor(digits.images, device=device).unsqueeze(1)  # uint8 (N, 1, 28, 28)
        self.labels = torch.tensor(digits.labels, device=device)  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 1, 28, 28) and labels (B,) of the samples at `indices` (B,)."""
        images, labels = self.images[indices], self.labels[indices]
        return images if self.dtype == torch.uint8 else normalise(images, self.dtype), labels
