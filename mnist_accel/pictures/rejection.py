"""Tells digits from letters, lines and several digits in one, by a small network of scripts/train_rejection.py."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

WEIGHTS = Path(__file__).with_name("rejection.safetensors")
USUAL = 3.0
"""Added to the logit: the network was trained on as many other marks as digits, but most marks of pictures are digits.
With it, the probabilities of answers are calibrated, and a mark of logit -0.8 is just doubtful."""


def network() -> nn.Sequential:
    """Images (B, 1, 28, 28), 0 … 1 → the logit (B, 1) that each shows exactly one digit."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 9, 1))


@functools.cache
def trained() -> nn.Sequential:
    """The network with the weights of the package; as part of the convolutions, batch normalisation takes no time."""
    model = network().eval()
    model.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    layers: list[Any] = list(model)  # `fuse_conv_bn_eval` has types for convolutions only
    for start in (8, 4, 0):
        convolution, normalisation, relu, pooling = layers[start : start + 4]
        layers[start : start + 4] = fuse_conv_bn_eval(convolution, normalisation), pooling, relu
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


@torch.inference_mode()
def digit_probability(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The probability, float32 (N,), that each image, uint8 (N, 28, 28), white on black, shows exactly one digit."""
    parts = torch.from_numpy(images).unsqueeze(1).split(256)
    return np.concatenate([(trained()(part / 255).squeeze(1) + USUAL).sigmoid().numpy() for part in parts])
