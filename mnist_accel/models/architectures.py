"""The network architectures by name, and their input. To add one, write a function and enter it in `MODELS`."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mnist_accel.errors import WeightsError, did_you_mean, printable
from mnist_accel.files.untrusted import refusing
from mnist_accel.models import own_network

MEAN, STD = 0.1307, 0.3081  # of MNIST's training pixels in 0 … 1; https://github.com/pytorch/examples/tree/main/mnist


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """The input of a network: (pixel / 255 - MEAN) / STD in `dtype` for uint8 images of any shape."""
    return images.to(dtype).mul_(1 / (255 * STD)).sub_(MEAN / STD)


class Dropout(nn.Module):
    """Inverted dropout, fast on a CPU: 16 random bits per unit, so the probability is rounded to 1/65536."""

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


def cnn(classes: int, dropout: float) -> nn.Sequential:
    """Four 3×3 convolutions without padding and two linear layers: 594,922 parameters with 10 classes."""
    features = nn.Sequential(
        nn.Conv2d(1, 32, 3),  # (B, 32, 26, 26)
        nn.ReLU(inplace=True),
        nn.Conv2d(32, 32, 3),  # (B, 32, 24, 24)
        nn.MaxPool2d(2),  # (B, 32, 12, 12)
        nn.ReLU(),  # the result is the same as before pooling, with a quarter of the work
        nn.Conv2d(32, 64, 3),  # (B, 64, 10, 10)
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 3),  # (B, 64, 8, 8)
        nn.MaxPool2d(2),  # (B, 64, 4, 4)
        nn.ReLU(),
    )
    hidden = (nn.Linear(64 * 4 * 4, 512), nn.ReLU(inplace=True), Dropout(dropout))
    return _network(features, nn.Sequential(nn.Flatten(), *hidden, nn.Linear(512, classes)))


def small_cnn(classes: int, dropout: float) -> nn.Sequential:
    """A 5×5 and a 3×3 convolution, each with pooling, and two linear layers: 422,122 parameters with 10 classes."""
    features = nn.Sequential(
        nn.Conv2d(1, 16, 5),  # (B, 16, 24, 24)
        nn.MaxPool2d(2),  # (B, 16, 12, 12)
        nn.ReLU(),
        nn.Conv2d(16, 64, 3),  # (B, 64, 10, 10)
        nn.MaxPool2d(2),  # (B, 64, 5, 5)
        nn.ReLU(),
    )
    hidden = (nn.Linear(64 * 5 * 5, 256), nn.ReLU(inplace=True), Dropout(dropout))
    return _network(features, nn.Sequential(nn.Flatten(), *hidden, nn.Linear(256, classes)))


def fast_cnn(classes: int, dropout: float) -> nn.Sequential:
    """A 5×5 and a 3×3 convolution with batch normalisation and pooling, and a hidden layer with layer normalisation."""
    features = nn.Sequential(
        *_normalised(1, 16, kernel=5, pool=True),  # (B, 16, 10, 10)
        *_normalised(16, 32, pool=True),  # (B, 32, 4, 4)
    )
    hidden = (nn.Linear(32 * 4 * 4, 64), nn.LayerNorm(64), nn.ReLU(inplace=True), Dropout(dropout))
    return _network(features, nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, classes)), margin=2)


def normalised_cnn(classes: int, dropout: float) -> nn.Sequential:
    """Five 3×3 convolutions with batch normalisation, pooling in the second and fourth, and a linear layer."""
    features = nn.Sequential(
        *_normalised(1, 32),  # (B, 32, 26, 26)
        *_normalised(32, 32, pool=True),  # (B, 32, 12, 12)
        *_normalised(32, 64),  # (B, 64, 10, 10)
        *_normalised(64, 64, pool=True),  # (B, 64, 4, 4)
        *_normalised(64, 128, padding=1),  # (B, 128, 4, 4)
    )
    return _network(features, nn.Sequential(nn.Flatten(), Dropout(dropout), nn.Linear(128 * 4 * 4, classes)))


def light_cnn(classes: int, dropout: float) -> nn.Sequential:
    """A 5×5 and three 3×3 convolutions with batch normalisation, early pooling, and a linear layer."""
    features = nn.Sequential(
        *_normalised(1, 16, kernel=5, pool=True),  # (B, 16, 10, 10)
        *_normalised(16, 32),  # (B, 32, 8, 8)
        *_normalised(32, 64, pool=True),  # (B, 64, 3, 3)
        *_normalised(64, 64, padding=1),  # (B, 64, 3, 3)
    )
    return _network(features, nn.Sequential(nn.Flatten(), Dropout(dropout), nn.Linear(64 * 3 * 3, classes)), margin=2)


def tiny_cnn(classes: int, dropout: float) -> nn.Sequential:
    """Three 3×3 convolutions with batch normalisation, and a linear layer: 3,154 parameters with 10 classes."""
    features = nn.Sequential(
        *_normalised(1, 8, pool=True),  # (B, 8, 13, 13)
        *_normalised(8, 16, pool=True),  # (B, 16, 5, 5)
        *_normalised(16, 12),  # (B, 12, 3, 3)
        nn.AdaptiveAvgPool2d(1),
    )
    return _network(features, nn.Sequential(nn.Flatten(), Dropout(dropout), nn.Linear(12, classes)))


def _network(features: nn.Sequential, classifier: nn.Sequential, margin: int = 0) -> nn.Sequential:
    """Images (B, 1, 28, 28) → logits (B, classes). `margin` pixels are cut off at each edge: digits fill 20×20."""
    layers: dict[str, nn.Module] = {"crop": nn.ZeroPad2d(-margin)} if margin else {}
    return nn.Sequential(OrderedDict(layers, features=features, classifier=classifier))


def _normalised(inputs: int, outputs: int, *, kernel: int = 3, pool: bool = False, padding: int = 0) -> list[nn.Module]:
    """Convolution of `inputs` to `outputs` channels, pooling if `pool`, batch normalisation, ReLU."""
    return [
        nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False),
        *([nn.MaxPool2d(2)] if pool else []),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


MODELS: Mapping[str, Callable[[int, float], nn.Module]] = {
    "cnn": cnn,
    "small-cnn": small_cnn,
    "fast-cnn": fast_cnn,
    "normalised-cnn": normalised_cnn,
    "light-cnn": light_cnn,
    "tiny-cnn": tiny_cnn,
}


def build(name: str, *, classes: int = 10, dropout: float = 0.0, part: int = 2) -> nn.Module:
    """A new model: one of `MODELS`, or the user's own, checked with `part` images, the fewest that a process gets."""
    if ":" in name:
        return own_network.build(name, classes, part)
    return MODELS[name](classes, dropout)


def from_state(state: Mapping[str, Tensor], name: str | None, path: Path, classes: int = 0) -> tuple[str, nn.Module]:
    """The architecture `name`, by default the one with these tensors, and a model of it with the weights `state`.

    `path` is that of the weights, and `classes` is 0 if it is not recorded. Raises WeightsError if they do not fit.
    """
    name = name or next((known for known in MODELS if build(known).state_dict().keys() == state.keys()), None)
    if name is None:
        raise WeightsError(f"{path}: these weights fit no model", f"give weights of {' or '.join(MODELS)}")
    if ":" not in name:
        if name not in MODELS:
            name = printable(name, 60)
            raise WeightsError(f"{path}: weights of an unknown model {name!r}", did_you_mean(name, MODELS))
        *_, last = build(name).state_dict()  # the bias of the last linear layer
        classes = min(max(state[last].numel(), 1), 256) if last in state else 10  # labels are bytes
    model = build(name, classes=classes or 10)
    with refusing(WeightsError, f"{path}: these weights do not fit", f"give weights of {name}"):
        model.load_state_dict(dict(state))
    return name, model
