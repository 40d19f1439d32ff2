"""What speed is measured against: loops that people write by hand, without Accelerate and without this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Step = Callable[[], None]


def plain_cnn() -> nn.Module:
    """The model `cnn` as one writes it first: ReLU before pooling, torch's own dropout."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)),
    )


def bare_loop(
    model: nn.Module, images: Tensor, labels: Tensor, device: torch.device, batch_size: int, *, is_bf16: bool
) -> Step:
    """A step of a good hand-written loop: the data set in one uint8 tensor, gathered by index; fused Adam.

    Args:
        images: uint8 (N, 28, 28).
        labels: int64 (N,).
        is_bf16: bf16 autocast and channels_last; else fp32 and torch's default memory format.
    """
    model.to(device)
    if is_bf16:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    images, labels = images.unsqueeze(1).to(device), labels.to(device)
    batches = _shuffled(len(labels), batch_size, device)

    def step() -> None:
        here = next(batches)
        with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
            inputs = images[here].float().div_(255).sub_(0.1307).div_(0.3081)
            loss = cross_entropy(model(inputs), labels[here])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def plain_script(images: Tensor, labels: Tensor, device: torch.device, batch_size: int) -> Step:
    """A step of the script that tutorials show: DataLoader, a PIL image and torchvision's transforms a sample, fp32."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    class Samples(Dataset[tuple[Tensor, int]]):
        """As torchvision.datasets.MNIST gives them."""

        transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return self.transform(Image.fromarray(images[index].numpy())), int(labels[index])

    model = plain_cnn().to(device)
    optimizer = torch.optim.Adam(model.parameters())

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from DataLoader(Samples(), batch_size=batch_size, shuffle=True, drop_last=True)

    batches = endless()

    def step() -> None:
        inputs, targets = (part.to(device) for part in next(batches))
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()

    return step


def _shuffled(samples: int, batch_size: int, device: torch.device) -> Iterator[Tensor]:
    while True:
        order = torch.randperm(samples, device=device)
        for start in range(0, samples - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
