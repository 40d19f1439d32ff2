"""Batches: images gathered by index, and normalised on the device of the network."""

import numpy as np
import torch
from torch import Tensor

from mnist_accel.data.digits import Digits
from mnist_accel.models.normalisation import normalise


class InputPipeline:
    """A data set whose batches are gathered by one indexing operation, without a Python loop over samples.

    Args:
        digits: images uint8 (N, 28, 28), labels int64 (N,).
        device: of the batches.
        dtype: of the batches. With uint8, pixels are not normalised, for models that normalise their input.

    Attributes:
        home: the device that stores the data set and takes the indices. It is `device`, or the CPU if the images are
            mapped from a file or take more than half of the device's free memory.
    """

    def __init__(self, digits: Digits, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        is_mapped = isinstance(digits.images, np.memmap)
        does_fit = device.type != "cuda" or digits.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2
        self.home = device if does_fit and not is_mapped else torch.device("cpu")
        images = torch.from_numpy(digits.images) if is_mapped else torch.tensor(digits.images, device=self.home)
        self.images = images.unsqueeze(1)  # uint8 (M, 1, 28, 28)
        self.labels = torch.tensor(digits.labels, device=self.home)  # int64 (N,)
        self.rows = None if digits.rows is None else torch.tensor(digits.rows, device=self.home)  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Normalised images (B, 1, 28, 28) and labels (B,) of the samples at `indices` (B,), on the device."""
        rows = indices if self.rows is None else self.rows[indices]
        images, labels = self.images[rows], self.labels[indices]
        if self.home != self.device:
            images, labels = (part.pin_memory().to(self.device, non_blocking=True) for part in (images, labels))
        return images if self.dtype == torch.uint8 else normalise(images, self.dtype), labels
