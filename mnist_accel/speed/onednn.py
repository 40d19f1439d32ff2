"""Trains chains of convolutions on a CPU in oneDNN's own memory layout.

PyTorch computes convolutions with oneDNN, but pooling and ReLU with kernels of its own, and passes tensors between
them in PyTorch's layouts. In oneDNN's layout, blocks of 16 channels, oneDNN computes all of them: a training step
takes 0.87 of the time (docs/performance.md). Results differ by rounding only.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm


def use_layout(model: nn.Module) -> None:
    """Let each `nn.Sequential` of convolutions, batch normalisation, ReLU and pooling train in oneDNN's layout."""
    for chain in model.modules():
        if type(chain) is nn.Sequential and _can_use_layout(list(chain)):
            # Assigning a class changes `forward` alone: a wrapper around the chain would rename its parameters, and a
            # function stored in the instance would compute with the original's parameters in a deep copy.
            chain.__class__ = _Chain
            for layer in chain:
                if isinstance(layer, nn.Conv2d):
                    layer.__class__ = _Convolution


def is_faster(dtype: torch.dtype) -> bool:
    """Whether this CPU computes convolutions in `dtype` faster in oneDNN's layout."""
    has_avx512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return has_avx512 and bool(torch.backends.mkldnn.is_available()) and dtype in (torch.float32, torch.bfloat16)


class _Convolution(nn.Conv2d):
    """A convolution that also takes images in oneDNN's layout."""

    def forward(self, images: Tensor) -> Tensor:
        if not images.is_mkldnn:
            return super().forward(images)
        # In bf16, Conv2d would need bf16 weights in oneDNN's layout, which an optimizer cannot update.
        weight, bias = (None if part is None else part.to(images.dtype) for part in (self.weight, self.bias))
        settings = (self.padding, self.stride, self.dilation, self.groups)
        features: Tensor = torch.ops.aten.mkldnn_convolution(images, weight, bias, *settings)
        return features


class _Chain(nn.Sequential):
    """Computes in oneDNN's layout while it trains. Images (B, C, H, W) → features (B, C, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype
        is_supported = images.device.type == "cpu" and images.dtype == torch.float32 and len(images) > 0
        # torch.compile and autocast do not support this layout.
        if torch.compiler.is_compiling() or not (self.training and is_supported and is_faster(dtype)):
            return self._layers(images)
        with torch.autocast("cpu", enabled=False):
            features = self._layers(images.to(dtype).to_mkldnn()).to_dense()
        # oneDNN's ReLU turns NaN into 0, so a bad number among the weights need not reach the loss. This subtracts 0
        # where all weights are finite, which keeps all bits, and NaN elsewhere. It takes 0.04 ms.
        return features.sub_(0 * get_total_norm(self.parameters()))

    def _layers(self, images: Tensor) -> Tensor:
        for layer in self:
            images = layer(images)
        return images


def _can_use_layout(layers: list[nn.Module]) -> bool:
    """Whether oneDNN's layout supports these layers as they are configured, in this order."""
    before: nn.Module | None = None
    for layer in layers:
        if type(layer) is nn.Conv2d:
            supported = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        elif type(layer) is nn.BatchNorm2d:
            supported = layer.affine and layer.track_running_stats
        elif type(layer) is nn.MaxPool2d:
            supported = layer.dilation in (1, (1, 1)) and not layer.return_indices
        else:  # pooling and ReLU need their results in the backward pass, so a ReLU may not overwrite them
            overwrites = isinstance(layer, nn.ReLU) and layer.inplace
            supported = type(layer) is nn.ReLU and not (overwrites and isinstance(before, nn.MaxPool2d | nn.ReLU))
        if not supported or (before is None and not isinstance(layer, nn.Conv2d)):
            return False
        before = layer
    return before is not None
