"""Augmentation: random rotation, shift and scale of a batch of images, computed on the device of the batch."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mnist_accel.config.settings import TrainConfig


class Augmentation:
    """Distorts training images by random numbers that depend only on the seed, the epoch and the sample.

    Args:
        samples: the number of samples in the training set.
        background: the value of a black pixel; pixels from outside the image get it.
        device: of the batches.
    """

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
        return grid_sample(images - self.background, grid, align_corners=False) + self.background
