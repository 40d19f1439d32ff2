"""The batches of an epoch: their samples, their images, and the random distortion of images for training."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.digits import Digits
from mnist_accel.models.architectures import normalise


def epoch_order(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of the training samples in one epoch: a permutation of 0 … samples - 1, from seed and epoch only."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


def local_slices(batch: int, rank: int, world_size: int, accumulation_steps: int) -> list[slice]:
    """The part of a global batch that one process computes: one slice for each accumulation step.

    Its `batch` samples are divided into accumulation_steps × world_size consecutive parts, whose sizes differ by at
    most one. Parts of a short batch may be empty.
    """
    parts = accumulation_steps * world_size
    return [slice(part * batch // parts, (part + 1) * batch // parts) for part in range(rank, parts, world_size)]


class InputPipeline:
    """A data set on a device, and its batches; of uint8 without normalisation, for models that normalise themselves."""

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


class Augmentation:
    """Rotates, shifts and scales images by random numbers that depend only on the seed, the epoch and the sample."""

    def __init__(self, config: TrainConfig, samples: int, background: float, device: torch.device) -> None:
        self.seed, self.samples, self.background = config.seed, samples, background
        self.rotation, self.shift, self.scale = math.radians(config.rotation), config.shift, config.scale
        self.is_on = bool(config.rotation or config.shift or config.scale)
        self._epoch, self._draws = -1, torch.empty(samples if self.is_on else 0, 5, device=device)

    def start_epoch(self, epoch: int) -> None:
        """Draw the numbers of an epoch, unless that is done: for each sample an angle, two scales and two shifts."""
        if self.is_on and epoch != self._epoch:
            uniform = np.random.default_rng([self.seed, epoch, 1]).random((self.samples, 5), np.float32)
            widths = torch.tensor([self.rotation, self.scale, self.scale, self.shift, self.shift])
            # In place, because a recorded step reads them from there.
            self._draws.copy_((torch.from_numpy(uniform) * 2 - 1) * widths + torch.tensor([0, 1, 1, 0, 0]))
            self._epoch = epoch

    def __call__(self, images: Tensor, samples: Tensor) -> Tensor:
        """Distort the images (B, 1, H, W) of the samples (B,) as in the epoch that has started."""
        if not self.is_on or not len(images):
            return images
        parameters = self._draws[samples].to(images)[:, :, None, None]
        angle, x_scale, y_scale, x_shift, y_shift = parameters.unbind(dim=1)  # each (B, 1, 1)
        height, width = images.shape[2:]
        x = torch.arange(1 - width, width, 2, device=images.device, dtype=images.dtype) / width  # -1 … 1, pixel centres
        y = torch.arange(1 - height, height, 2, device=images.device, dtype=images.dtype)[:, None] / height
        cos, sin = angle.cos(), angle.sin()
        # The position in the original image of each pixel (B, H, W). Not computed by matrix products, because their
        # rounding may depend on the batch size.
        x_from = (cos * x_scale * x) + (-sin * x_scale * y) + x_shift * 2 / width
        y_from = (sin * y_scale * x) + (cos * y_scale * y) + y_shift * 2 / height
        grid = torch.stack([x_from, y_from], dim=3)
        # grid_sample takes 0 for pixels from outside the image, which become `background`.
        return grid_sample(images - self.background, grid, align_corners=False) + self.background
