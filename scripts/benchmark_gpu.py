"""Time ways to train the network `cnn` on one GPU, in turn, and print one JSON line for each.

    python scripts/benchmark_gpu.py --epochs 5 --rounds 3

The ways: this package's whole run, with and without recorded steps (`--cuda-graph`); loops written by hand, with and
without a CUDA graph; Lightning (if it is installed), with a DataLoader and torchvision's transforms and with batches
from one tensor; the script of most tutorials. All train at batch 128 with Adam, in bf16 autocast but for the script,
which is in fp32. A figure is images per second of the last epoch of a run; earlier epochs are the warm-up.
"""

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, default_collate

from mnist_accel.checks.bench_worker import Candidate, burst, gathered_batches, plain_cnn
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import datasets
from mnist_accel.data.digits import Digits
from mnist_accel.training.events import Observer
from mnist_accel.training.train import run_training

BATCH_SIZE = 128
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Wait for the GPU."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def ours(samples: int | None, epochs: int, *, cuda_graph: bool) -> float:
    """A run of this package."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            epochs=epochs, train_samples=samples, cuda_graph=cuda_graph, mixed_precision="bf16", output_dir=Path(folder)
        )
        return run_training(config, Observer())[0].images_per_second


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    """As a loop written by hand has them."""
    model = plain_cnn().to(DEVICE).to(memory_format=torch.channels_last)
    return model, torch.optim.Adam(model.parameters(), fused=True, capturable=DEVICE.type == "cuda")


def step_by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """One optimizer step; the loss."""
    with torch.autocast(DEVICE.type, torch.bfloat16):
        loss = cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def bare(digits: Digits, epochs: int) -> float:
    """A loop without a graph."""
    model, optimizer = model_and_optimizer()
    for _ in range(epochs):
        began = time.perf_counter()
        for images, labels in gathered_batches(digits, BATCH_SIZE, DEVICE):
            step_by_hand(model, optimizer, images, labels)
        wait()
    return len(digits) / (time.perf_counter() - began)


def bare_graph(digits: Digits, epochs: int) -> float:
    """A loop that replays a CUDA graph of gathering, forward and backward pass and update; one for each batch size."""
    model, optimizer = model_and_optimizer()
    images = torch.tensor(digits.images).unsqueeze(1).to(DEVICE)
    labels = torch.tensor(digits.labels).to(DEVICE)
    graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def step(batch: Tensor) -> Tensor:
        return step_by_hand(model, optimizer, images[batch].float().div_(255).sub_(0.1307).div_(0.3081), labels[batch])

    for size in {BATCH_SIZE, len(labels) % BATCH_SIZE or BATCH_SIZE}:
        batch = torch.arange(size, device=DEVICE)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                step(batch)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step(batch)
        graphs[size] = graph, batch
    for _ in range(epochs):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for chosen in torch.randperm(len(labels), device=DEVICE).split(BATCH_SIZE):
            graph, batch = graphs[len(chosen)]
            batch.copy_(chosen)
            graph.replay()
        torch.cuda.synchronize()
    return len(labels) / (time.perf_counter() - began)


def with_lightning(digits: Digits, epochs: int, *, workers: int) -> float:
    """Lightning's Trainer, with `workers` processes that apply torchvision's transforms; 0: batches from one tensor."""
    import lightning
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    times: list[float] = []

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = plain_cnn()

        def training_step(self, batch: Any, _: int) -> Tensor:
            return cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), fused=True)

        def on_train_epoch_start(self) -> None:
            times.append(time.perf_counter())

        def on_train_epoch_end(self) -> None:
            wait()
            times.append(time.perf_counter())

    def collate(batch: list[int]) -> Any:
        samples = [(transform(Image.fromarray(digits.images[i])), int(digits.labels[i])) for i in batch]
        return tuple(default_collate(samples))

    class OnDevice:
        def __len__(self) -> int:
            return 1 + (len(digits) - 1) // BATCH_SIZE

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return gathered_batches(digits, BATCH_SIZE, DEVICE)

    indices: Any = range(len(digits))
    loader: Any = OnDevice()
    if workers:
        loader = DataLoader(
            indices, BATCH_SIZE, shuffle=True, collate_fn=collate, num_workers=workers, persistent_workers=True
        )
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=epochs, precision="bf16-mixed", default_root_dir=folder, devices=1, enable_progress_bar=False
        )
        trainer.fit(Module(), loader)
    return len(digits) / (times[-1] - times[-2])


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, help="train on fewer samples")
    options = parser.parse_args()
    epochs, samples = options.epochs, options.samples
    digits = datasets.load("mnist", Path(), print).train
    digits = digits if samples is None else Digits(digits.images[:samples], digits.labels[:samples])
    ways: dict[str, Callable[[], float]] = {"ours": lambda: ours(samples, epochs, cuda_graph=False)}
    if DEVICE.type == "cuda":
        ways["ours, CUDA graph"] = lambda: ours(samples, epochs, cuda_graph=True)
        ways["bare loop, CUDA graph"] = lambda: bare_graph(digits, epochs)
    ways["bare loop"] = lambda: bare(digits, epochs)
    ways["Lightning, batches from one tensor"] = lambda: with_lightning(digits, 2, workers=0)
    ways["Lightning, 8 workers"] = lambda: with_lightning(digits, 2, workers=8)
    found: dict[str, list[float]] = {}
    for round_number in range(options.rounds):
        for name, way in ways.items():
            if "workers" in name and round_number:
                continue  # it takes ten times as long as all others
            with contextlib.redirect_stdout(None):
                found.setdefault(name, []).append(round(way()))
    script = Candidate("", "plain script", "classic", BATCH_SIZE, "no", steps=100)
    error_output = os.dup(2)  # which the benchmark's worker closes
    if samples is None:
        with tempfile.TemporaryDirectory() as folder:
            found["plain script"] = [round(burst(script, "mnist", Path(folder)))]
    os.dup2(error_output, 2)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(json.dumps({"device": device, "torch": torch.__version__, "images_per_second": found, "medians": medians}))


if __name__ == "__main__":
    main()
