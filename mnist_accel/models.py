"""The architectures by name. They know nothing of data, devices or processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn


class CNN(nn.Module):
    """Four 3×3 convolutions without padding and two linear layers: 594,922 parameters with 10 classes.

    Images (B, 1, 28, 28) → logits (B, classes).
    """

    def __init__(self, classes: int = 10, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3),  # (B, 32, 26, 26)
            nn.ReLU(),
            nn.Conv2d(32, 32, 3),  # (B, 32, 24, 24)
            nn.ReLU(),
            nn.MaxPool2d(2),  # (B, 32, 12, 12)
            nn.Conv2d(32, 64, 3),  # (B, 64, 10, 10)
            nn.ReLU(),
            nn.Conv2d(64, 64, 3),  # (B, 64, 8, 8)
            nn.ReLU(),
            nn.MaxPool2d(2),  # (B, 64, 4, 4)
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 4 * 4, 512), nn.ReLU(), nn.Dropout(dropout), nn.Linear(512, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(images))
        return logits


MODELS: Mapping[str, Callable[..., nn.Module]] = {"cnn": CNN}


def build(name: str, *, dropout: float = 0.0) -> nn.Module:
    """A new model with random weights from torch's global generator."""
    return MODELS[name](dropout=dropout)


def parameter_count(model: nn.Module) -> int:
    """Numbers that training adjusts."""
    return sum(parameter.numel() for parameter in model.parameters())
