"""The memory layout that convolutions train in: oneDNN's own where that is faster, else torch's.

On a CPU oneDNN computes torch's convolutions, torch itself pooling and ReLU, and tensors pass between them in torch's
layouts. Left in oneDNN's, blocks of 16 channels, all of them are computed there: a step takes 0.87 of the time
(docs/performance.md). Results differ by rounding only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

is_wanted = True
"""Whether oneDNN's layout is used where it is faster; benchmarks compare."""


class Convolution(nn.Conv2d):
    """torch's, which also takes oneDNN's layout in bf16."""

    def forward(self, images: Tensor) -> Tensor:
        if not images.is_mkldnn:
            plain: Tensor = self._conv_forward(images, self.weight, self.bias)
            return plain
        # Conv2d would ask for weights of the images' type in the images' layout, which cannot be trained.
        weight = self.weight.to(images.dtype)
        bias = None if self.bias is None else self.bias.to(images.dtype)
        blocked: Tensor = torch.ops.aten.mkldnn_convolution(
            images, weight, bias, self.padding, self.stride, self.dilation, self.groups
        )
        return blocked


class Features(nn.Sequential):
    """Convolutions, pooling, batch normalisation and ReLU in a chain, in oneDNN's layout where that is faster.

    Images (B, C, H, W) → features (B, C, H, W). ReLU may work in place only after a convolution or normalisation.
    """

    def forward(self, images: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not self.training:  # the compiler does not know this layout
            return self._chain(images)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
        if not is_faster_blocked(images, dtype):
            return self._chain(images)
        with torch.autocast("cpu", enabled=False):  # it does not know it either
            return self._chain(images.to(dtype).to_mkldnn()).to_dense()

    def _chain(self, images: Tensor) -> Tensor:
        for layer in self:
            images = layer(images)
        return images


def is_faster_blocked(images: Tensor, dtype: torch.dtype) -> bool:
    """Whether convolutions of `images` in `dtype` are faster in oneDNN's layout, and can be computed in it."""
    return bool(
        is_wanted
        and images.device.type == "cpu"
        and images.dtype == torch.float32
        and len(images) > 0
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )
