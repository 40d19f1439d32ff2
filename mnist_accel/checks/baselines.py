"""Hand-written training loops, without Accelerate and without this package's loop, as references for speed."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, default_collate

from mnist_accel.data.digits import Digits
from mnist_accel.hardware.cores import available_cores

if TYPE_CHECKING:
    from mnist_accel.checks.bench_worker import Candidate


def plain_cnn() -> nn.Module:
    """The layers of the model `cnn` in the order of most tutorials: ReLU before pooling."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)),
    )


def training_burst(candidate: "Candidate", digits: Digits) -> Callable[[], None]:
    """A function that trains `plain_cnn` for one burst.

    "plain script" is the script of most tutorials: DataLoader, one PIL image and torchvision's transforms per sample.
    "bare loop" is fast: all images in one uint8 tensor, batches gathered by index, fused Adam. bf16 means autocast and
    channels_last; else fp32 and torch's default memory format.
    """
    torch.set_num_threads(available_cores())
    device, is_bf16 = candidate.device, candidate.mixed_precision == "bf16"
    is_script = candidate.kind == "plain script"
    model = plain_cnn().to(device)
    if is_bf16:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=None if is_script else True)
    batch_size = candidate.batch_size
    batches = _script_batches(digits, batch_size) if is_script else _gathered_batches(digits, batch_size, device)

    def burst() -> None:
        for _ in range(candidate.steps):
            images, labels = (part.to(device) for part in next(batches))
            with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
                loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return burst


def _gathered_batches(digits: Digits, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    images = torch.from_numpy(digits.images).unsqueeze(1).to(device)
    labels = torch.from_numpy(digits.labels).to(device)
    while True:
        for batch in torch.randperm(len(labels), device=device).split(batch_size)[:-1]:
            yield images[batch].float().div_(255).sub_(0.1307).div_(0.3081), labels[batch]


def _script_batches(digits: Digits, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def collate(batch: list[int]) -> tuple[Tensor, Tensor]:
        samples = [(transform(Image.fromarray(digits.images[i])), int(digits.labels[i])) for i in batch]
        return tuple(default_collate(samples))

    while True:
        yield from DataLoader(
            range(len(digits)),  # type: ignore[arg-type]  # a sequence of indices is a data set
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            collate_fn=collate,
        )
