"""Networks from outside: a small vision transformer, group normalisation, and some that cannot be trained."""

import numpy as np
import torch
from torch import Tensor, nn


class Patches(nn.Module):
    """A transformer of two layers on patches of 7×7 pixels."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 32, 7, stride=7)
        self.position = nn.Parameter(torch.randn(1, 16, 32) * 0.02)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(self.embed(images).flatten(2).transpose(1, 2) + self.position)
        logits: Tensor = self.head(tokens.mean(dim=1))
        return logits


class Grouped(nn.Sequential):
    """Two convolutions with group normalisation."""

    def __init__(self, classes: int) -> None:
        first = (nn.Conv2d(1, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.ReLU())
        second = (nn.Conv2d(8, 16, 3, stride=2), nn.GroupNorm(4, 16), nn.ReLU())
        super().__init__(*first, *second, nn.Flatten(), nn.Linear(16 * 36, classes))


class WrongShape(Grouped):
    def __init__(self, classes: int) -> None:
        super().__init__(classes + 1)


class Unused(Grouped):
    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.spare = nn.Parameter(torch.zeros(1))


class Random(Grouped):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits + torch.randn_like(logits)


class HiddenState(Grouped):
    counter: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.register_buffer("counter", torch.zeros(()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.counter += 1
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits


class OtherRandomNumbers(Grouped):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        return logits * np.random.default_rng().random() if self.training else logits


class Lazy(nn.Sequential):
    def __init__(self, classes: int) -> None:
        super().__init__(nn.Flatten(), nn.LazyLinear(classes))


class Normalised(nn.Sequential):
    """Batch normalisation of features without height and width, which has no statistics of a single image."""

    def __init__(self, classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))


class Unusual(nn.Module):
    """The first layer is not trained, two layers share their weights, and a buffer counts."""

    count: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, stride=3).requires_grad_(False)
        self.second, self.third = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third.weight = self.second.weight
        self.last = nn.Linear(8 * 9 * 9, classes)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.count += 1
        logits: Tensor = self.last(self.third(self.second(self.first(images)).relu()).relu().flatten(1))
        return logits


class NoArgument(nn.Linear):
    def __init__(self) -> None:
        super().__init__(784, 10)


class NotANetwork:
    def __init__(self, classes: int) -> None: ...
