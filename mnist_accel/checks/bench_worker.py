"""One candidate of the benchmark: trains bursts of steps in a process of its own."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, default_collate

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import datasets
from mnist_accel.data.digits import Digits
from mnist_accel.hardware.cores import available_cores
from mnist_accel.reports.console import TrainingConsole
from mnist_accel.training.train import run_training


@dataclass(frozen=True)
class Candidate:
    """One way to train: the `kind` "ours" is this package's loop, the others are written by hand, as a reference.

    "plain script" is the script of most tutorials: DataLoader, one PIL image and torchvision's transforms per sample.
    "bare loop" is fast: all images in one uint8 tensor, batches gathered by index, fused Adam.
    """

    title: str
    kind: str
    recipe: str
    batch_size: int
    mixed_precision: str  # in a loop written by hand, bf16 means autocast and channels_last, and "no" torch's defaults
    speedups: bool = True
    processes: int = 1
    cpu: bool = False
    steps: int = 100  # optimizer steps of one burst, the unit that is timed

    @property
    def device(self) -> torch.device:
        found = None if self.cpu else torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")


def burst(candidate: Candidate, dataset: str, folder: Path) -> float:
    """Train once on `dataset` in this process, one of the candidate's; images per second."""
    return (train_ours if candidate.kind == "ours" else train_by_hand)(candidate, dataset, folder)


def set_up(candidate: Candidate, port: int, rank: int) -> None:
    """Silence libraries' warnings, and set the variables of a launcher for process `rank` of the candidate."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if candidate.processes > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
        os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(candidate.processes))


def train_ours(candidate: Candidate, dataset: str, folder: Path) -> float:
    """A run of this package, with its progress bar, metrics and a checkpoint."""
    names = ("recipe", "batch_size", "mixed_precision", "speedups", "cpu")
    settings: dict[str, Any] = {name: getattr(candidate, name) for name in names}
    config = TrainConfig(
        dataset=dataset, epochs=1, checkpoint_every=candidate.steps, timeout=3600, output_dir=folder, **settings
    )
    with Path(os.devnull).open("w") as screen:
        console = TrainingConsole(Console(file=screen, force_terminal=True))
        return run_training(config, console)[0].images_per_second


def train_by_hand(candidate: Candidate, dataset: str, folder: Path) -> float:
    """A loop without Accelerate and without this package's loop."""
    torch.set_num_threads(available_cores())
    digits = datasets.load(dataset, folder, lambda _: None).train
    device, is_bf16, is_script = candidate.device, candidate.mixed_precision == "bf16", candidate.kind == "plain script"
    model = plain_cnn().to(device)
    if is_bf16:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), fused=None if is_script else True)
    batches = script_batches if is_script else gathered_batches
    began = time.perf_counter()
    for images, labels in batches(digits, candidate.batch_size, device):
        with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
            loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return len(digits) / (time.perf_counter() - began)


def plain_cnn() -> nn.Module:
    """The layers of the model `cnn` in the order of most tutorials: ReLU before pooling."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 512), nn.ReLU(), nn.Dropout(0.5), nn.Linear(512, 10)),
    )


def gathered_batches(digits: Digits, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch, gathered on the device."""
    images = torch.tensor(digits.images).unsqueeze(1).to(device)
    labels = torch.tensor(digits.labels).to(device)
    for batch in torch.randperm(len(labels), device=device).split(batch_size):
        yield images[batch].float().div_(255).sub_(0.1307).div_(0.3081), labels[batch]


def script_batches(digits: Digits, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch, from a DataLoader and torchvision's transforms."""
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def collate(batch: list[int]) -> tuple[Tensor, Tensor]:
        samples = [(transform(Image.fromarray(digits.images[i])), int(digits.labels[i])) for i in batch]
        return tuple(default_collate(samples))

    indices: Any = range(len(digits))  # a sequence is a data set
    for images, labels in DataLoader(indices, batch_size, shuffle=True, collate_fn=collate):
        yield images.to(device), labels.to(device)
