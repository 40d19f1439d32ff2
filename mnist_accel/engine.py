"""The training loop: fit → train_epoch → train_step. Files, screens and pictures are elsewhere, behind the observer."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_accel import models
from mnist_accel.config import TrainConfig
from mnist_accel.data import DataSet
from mnist_accel.hardware import Hardware
from mnist_accel.metrics import Predictions, evaluate
from mnist_accel.observers import EpochRecord, Observer, StepSums
from mnist_accel.optim import build_optimizer
from mnist_accel.order import epoch_order, local_slices, steps_per_epoch
from mnist_accel.pipeline import InputPipeline

EVALUATION_BATCH_SIZE = 1000
"""Samples of a forward pass over all processes: large enough to be fast, small enough for any memory."""


@dataclass
class Training:
    """All that the loop works on."""

    config: TrainConfig
    hardware: Hardware
    model: nn.Module
    """As Accelerate prepared it: with autocast, and wrapped where gradients are exchanged."""
    optimizer: torch.optim.Optimizer
    train: InputPipeline
    test: InputPipeline

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.train), self.config.batch_size)

    @property
    def module(self) -> nn.Module:
        """The model without the wrapper that exchanges gradients."""
        module: nn.Module = self.hardware.accelerator.unwrap_model(self.model)
        return module


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        step_losses: mean loss of each global batch of the last epoch, float64 (steps,).
        predictions: of the final weights, on the test set.
    """

    history: list[EpochRecord]
    step_losses: Tensor
    predictions: Predictions


def prepare(config: TrainConfig, hardware: Hardware, data: DataSet) -> Training:
    """Model, optimizer and data on the device, from `config.seed`."""
    dtype = getattr(torch, config.dtype)
    set_seed(config.seed)  # the same first weights on every process
    model = models.build(config.model, dropout=config.dropout).to(dtype).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, config)
    model, optimizer = hardware.accelerator.prepare(model, optimizer)
    set_seed(config.seed, device_specific=True)  # another dropout on each
    return Training(
        config=config,
        hardware=hardware,
        model=model,
        optimizer=optimizer,
        train=InputPipeline(data.train, hardware.device, dtype),
        test=InputPipeline(data.test, hardware.device, dtype),
    )


def fit(training: Training, observer: Observer) -> Trained:
    """Train for `config.epochs` epochs and report each; the test set is only looked at, never acted on."""
    history = []
    for epoch in range(training.config.epochs):
        observer.epoch_started(epoch)
        started = time.perf_counter()
        sums = train_epoch(training, epoch, observer)
        train_loss, train_accuracy, step_losses = _means(training, sums)  # waits for the device
        seconds = time.perf_counter() - started
        predictions = evaluate(training.module, training.test, training.hardware, EVALUATION_BATCH_SIZE)
        record = EpochRecord(
            epoch=epoch + 1,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=predictions.loss,
            test_accuracy=predictions.accuracy,
            lr=training.optimizer.param_groups[0]["lr"],
            images_per_second=len(training.train) / seconds,
            train_seconds=seconds,
        )
        history.append(record)
        observer.epoch_finished(record)
    return Trained(history, step_losses, predictions)


def train_epoch(training: Training, epoch: int, observer: Observer) -> StepSums:
    """One pass over the training set; the sums of its steps."""
    config, steps, device = training.config, training.steps_per_epoch, training.train.device
    order = torch.from_numpy(epoch_order(len(training.train), config.seed, epoch)).to(device)
    precise = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    sums = StepSums(torch.zeros(steps, device=device, dtype=precise), torch.zeros(steps, device=device, dtype=precise))
    training.model.train()
    for step in range(steps):
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        train_step(training, batch, step, sums)
        observer.step_finished(step, sums)
    return sums


def train_step(training: Training, batch: Tensor, step: int, sums: StepSums) -> None:
    """One optimizer step on a global batch of sample indices (B,), of which this process computes its part."""
    accelerator, optimizer = training.hardware.accelerator, training.optimizer
    world_size = accelerator.num_processes
    parts = local_slices(len(batch), accelerator.process_index, world_size, training.config.gradient_accumulation_steps)
    for part in parts:
        # Gradients are exchanged once a step. A process whose part is empty takes part in that all the same.
        with contextlib.nullcontext() if part is parts[-1] else accelerator.no_sync(training.model):
            images, labels = training.train.batch(batch[part])
            logits = training.model(images)
            loss = cross_entropy(logits, labels, reduction="sum")
            # The exchange averages over processes; this makes the sum of all parts the mean over the global batch.
            accelerator.backward(loss * (world_size / len(batch)))
        sums.losses[step] += loss.detach()
        sums.correct[step] += (logits.argmax(dim=1) == labels).sum()
        sums.samples += len(labels)
    optimizer.step()
    optimizer.zero_grad()


def _means(training: Training, sums: StepSums) -> tuple[float, float, Tensor]:
    """Mean loss and accuracy over the epoch and mean loss of each step, over all processes."""
    table = torch.stack([sums.losses, sums.correct])
    losses, correct = training.hardware.accelerator.reduce(table, "sum").cpu().double()
    samples, batch_size = len(training.train), training.config.batch_size
    counts = torch.full_like(losses, batch_size)
    counts[-1] = samples - (len(losses) - 1) * batch_size
    return float(losses.sum()) / samples, float(correct.sum()) / samples, losses / counts
