"""The network architectures by name. To add one, write a module and enter it in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Inverted dropout that is fast on a CPU: it draws 16 random bits per unit, four units per call of the generator.

    `torch.nn.Dropout` draws one random number per unit. The probability is rounded to a multiple of 1/65536.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, units: Tensor) -> Tensor:
        if not self.training or self.probability == 0 or units.device.type != "cpu":
            return functional.dropout(units, self.probability, self.training)
        words = torch.empty(-(-units.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: units.numel()].view_as(units)  # uniform over -32768 … 32767
        dropped = round(self.probability * 65536)
        return units * (bits >= dropped - 32768).to(units.dtype).mul_(65536 / (65536 - dropped))


class CNN(nn.Module):
    """Four 3×3 convolutions without padding and two linear layers: 594,922 parameters with 10 classes.

    Images (B, 1, 28, 28) → logits (B, classes). ReLU follows pooling: the result is the same as before pooling, with
    a quarter of the work.
    """

    def __init__(self, classes: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3),  # (B, 32, 26, 26)
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3),  # (B, 32, 24, 24)
            nn.MaxPool2d(2),  # (B, 32, 12, 12)
            nn.ReLU(),
            nn.Conv2d(32, 64, 3),  # (B, 64, 10, 10)
            nn.ReLU(inplace=True),
            nn.Conv2d(64, 64, 3),  # (B, 64, 8, 8)
            nn.MaxPool2d(2),  # (B, 64, 4, 4)
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 4 * 4, 512), nn.ReLU(inplace=True), Dropout(dropout), nn.Linear(512, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


class SmallCNN(nn.Module):
    """A 5×5 and a 3×3 convolution, each with pooling, and two linear layers: 422,122 parameters with 10 classes.

    Images (B, 1, 28, 28) → logits (B, classes).
    """

    def __init__(self, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 5),  # (B, 16, 24, 24)
            nn.MaxPool2d(2),  # (B, 16, 12, 12)
            nn.ReLU(),
            nn.Conv2d(16, 64, 3),  # (B, 64, 10, 10)
            nn.MaxPool2d(2),  # (B, 64, 5, 5)
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 5 * 5, 256), nn.ReLU(inplace=True), Dropout(dropout), nn.Linear(256, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


class NormalisedCNN(nn.Module):
    """Five 3×3 convolutions with batch normalisation, pooling in the second and fourth, and a linear layer.

    Images (B, 1, 28, 28) → logits (B, classes).
    """

    def __init__(self, classes: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_normalised(1, 32),  # (B, 32, 26, 26)
            *_normalised(32, 32, pool=True),  # (B, 32, 12, 12)
            *_normalised(32, 64),  # (B, 64, 10, 10)
            *_normalised(64, 64, pool=True),  # (B, 64, 4, 4)
            *_normalised(64, 128, padding=1),  # (B, 128, 4, 4)
        )
        self.classifier = nn.Sequential(nn.Flatten(), Dropout(dropout), nn.Linear(128 * 4 * 4, classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


def _normalised(channels_in: int, channels_out: int, *, pool: bool = False, padding: int = 0) -> list[nn.Module]:
    """Convolution, pooling if `pool`, batch normalisation, ReLU."""
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=padding, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]


MODELS: Mapping[str, Callable[..., nn.Module]] = {"cnn": CNN, "small-cnn": SmallCNN, "normalised-cnn": NormalisedCNN}


def build(name: str, *, classes: int = 10, dropout: float = 0.0) -> nn.Module:
    """A new model; its initial weights come from torch's global random generator."""
    return MODELS[name](classes=classes, dropout=dropout)


def parameter_count(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
