"""The training loop: fit → train_epoch → train_step. Files, screens and pictures are elsewhere, behind the observer."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.distributed as distributed
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.augmentation import Augmentation
from mnist_accel.data.batches import InputPipeline
from mnist_accel.data.datasets import DataSet, Digits
from mnist_accel.data.sample_order import epoch_order, local_slices, steps_per_epoch
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.models import architectures as models
from mnist_accel.models.normalisation import MEAN, STD
from mnist_accel.speed.onednn import Features
from mnist_accel.speed.shared_memory import prepare_exchange
from mnist_accel.training.events import EpochRecord, Observer, StepSums
from mnist_accel.training.metrics import Predictions, evaluate
from mnist_accel.training.optimizer import build_optimizer, learning_rate
from mnist_accel.training.weight_average import WeightAverage

EVALUATION_BATCH_SIZE = 1000
"""Samples of a forward pass over all processes: large enough to be fast, small enough for any memory."""


@dataclass
class Training:
    """All that the loop works on.

    Attributes:
        model: as Accelerate prepared it: with autocast, and wrapped where gradients are exchanged.
        validation: the held-out training samples, if any.
        average: of the weights, where the recipe keeps one.
        found_bad: 1 once a loss or gradient was no finite number, else 0; a scalar on the device. The optimizer leaves
            the weights alone while it is 1.
        watched: weights that are looked at for bad numbers in each step, as gradients are.
        exchange: what gradients go through between processes; empty for one process.
    """

    config: TrainConfig
    hardware: Hardware
    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: InputPipeline
    validation: InputPipeline | None
    test: InputPipeline
    augment: Augmentation
    average: WeightAverage | None
    found_bad: Tensor
    watched: list[Tensor]
    exchange: str = ""

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.train), self.config.batch_size)

    @property
    def module(self) -> nn.Module:
        """The model without the wrappers that exchange gradients and compile."""
        module: nn.Module = self.hardware.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return module

    @property
    def result(self) -> nn.Module:
        """The weights that are tested and saved: the average where one is kept, else those that are trained."""
        return self.average.module if self.average else self.module


@dataclass(frozen=True)
class Best:
    """The epoch with the lowest validation loss so far, and its weights."""

    epoch: int
    loss: float
    weights: dict[str, Tensor]


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the current epoch.
        sums: of the current epoch; None before its first step.
        epoch_seconds: training clock of the current epoch so far.
    """

    epoch: int = 0
    step: int = 0
    sums: StepSums | None = None
    epoch_seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    best: Best | None = None

    def samples_seen(self, training: Training) -> int:
        """Samples trained on, over all epochs and processes."""
        here = min(self.step * training.config.batch_size, len(training.train))
        return self.epoch * len(training.train) + here

    def is_finished(self, config: TrainConfig) -> bool:
        """Whether all epochs are done, or none was better for as long as `early_stop` says."""
        waited = self.epoch - (self.best.epoch if self.best else 0)
        return self.epoch >= config.epochs or (config.early_stop is not None and waited >= config.early_stop)


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        chosen_epoch: whose weights are the final ones, from 1.
        predictions: of the final weights, on the test set.
    """

    history: list[EpochRecord]
    chosen_epoch: int
    predictions: Predictions


class Guard(Protocol):
    """Asked between two steps, on every process; stops the run by raising."""

    def after_step(self, training: Training, progress: Progress) -> None: ...

    def after_epoch(self, training: Training, progress: Progress) -> None: ...


def prepare(
    config: TrainConfig,
    hardware: Hardware,
    data: DataSet,
    validation: Digits | None = None,
    memory_format: torch.memory_format = torch.channels_last,
) -> Training:
    """Model, optimizer and data on the device, from `config.seed`."""
    dtype = getattr(torch, config.dtype)
    set_seed(config.seed)  # the same first weights on every process
    model = (
        models.build(config.model, classes=len(data.class_names), dropout=config.dropout)
        .to(dtype)
        .to(memory_format=memory_format)
    )
    optimizer = build_optimizer(model, config)
    found_bad = torch.zeros((), device=hardware.device)
    if hardware.accelerator.scaler is None:  # else the scaler does this
        optimizer.found_inf = found_bad  # type: ignore[attr-defined]  # torch's fused optimizers look for it
    model = hardware.accelerator.prepare(model)
    if hardware.accelerator.scaler is not None:  # else Accelerate's wrapper has no work, and takes 0.3 ms a step for it
        optimizer = hardware.accelerator.prepare(optimizer)
    train = InputPipeline(data.train, hardware.device, dtype)
    training = Training(
        config=config,
        hardware=hardware,
        model=model,
        optimizer=optimizer,
        train=train,
        validation=InputPipeline(validation, hardware.device, dtype) if validation else None,
        test=InputPipeline(data.test, hardware.device, dtype),
        augment=Augmentation(config, len(train), background=-MEAN / STD),
        average=None,
        found_bad=found_bad,
        watched=[
            parameter.detach()
            for chain in model.modules()
            if isinstance(chain, Features)
            for parameter in chain.parameters()
        ],
    )
    if config.average:
        training.average = WeightAverage(training.module, config.average)
    if hardware.world_size > 1:
        training.exchange = prepare_exchange(model, hardware, train.batch(slice(0, 1))[0])
        optimizer.zero_grad()
    set_seed(config.seed, device_specific=True)  # another dropout on each process
    return training


def fit(training: Training, progress: Progress, observer: Observer, guard: Guard) -> Trained:
    """Train from `progress` to the end and report each epoch; the test set is only looked at, never acted on."""
    config, steps, predictions = training.config, training.steps_per_epoch, None
    while not progress.is_finished(config):
        observer.epoch_started(progress.epoch, progress.step)
        train_loss, train_accuracy = train_epoch(training, progress, observer, guard)
        chosen_by = training.validation or training.test
        predictions = evaluate(training.result, chosen_by, training.hardware, EVALUATION_BATCH_SIZE)
        held_out = training.validation is not None
        record = EpochRecord(
            epoch=progress.epoch + 1,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=None if held_out else predictions.loss,
            test_accuracy=None if held_out else predictions.accuracy,
            lr=learning_rate(config, (progress.epoch + 1) * steps - 1, config.epochs * steps),
            images_per_second=len(training.train) / progress.epoch_seconds,
            train_seconds=progress.epoch_seconds,
            validation_loss=predictions.loss if held_out else None,
            validation_accuracy=predictions.accuracy if held_out else None,
        )
        _finish_epoch(training, progress, record)
        observer.epoch_finished(record)
        guard.after_epoch(training, progress)
    chosen_epoch = progress.epoch
    if config.select == "best" and progress.best:
        chosen_epoch = progress.best.epoch
        training.result.load_state_dict(progress.best.weights)
    if predictions is None or training.validation is not None:
        predictions = evaluate(training.result, training.test, training.hardware, EVALUATION_BATCH_SIZE)
    return Trained(progress.history, chosen_epoch, predictions)


def train_epoch(training: Training, progress: Progress, observer: Observer, guard: Guard) -> tuple[float, float]:
    """The rest of the current epoch; mean loss and accuracy of the whole epoch, each sample as it was trained on."""
    config, steps, device = training.config, training.steps_per_epoch, training.train.device
    order = torch.from_numpy(epoch_order(len(training.train), config.seed, progress.epoch)).to(training.train.home)
    if progress.sums is None:
        precise = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        progress.sums = StepSums(torch.zeros(3, steps, device=device, dtype=precise))
    training.model.train()
    before, started = progress.epoch_seconds, time.perf_counter()
    for step in range(progress.step, steps):
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        train_step(training, batch, progress.epoch, step, progress.sums)
        progress.step = step + 1
        progress.epoch_seconds = before + time.perf_counter() - started
        guard.after_step(training, progress)
        observer.step_finished(step, progress.sums)
    _share_statistics(training)
    table = training.hardware.accelerator.reduce(progress.sums.table, "sum").cpu().double()  # waits for the device
    progress.epoch_seconds = before + time.perf_counter() - started
    loss, correct, _ = (table.sum(dim=1) / len(training.train)).tolist()
    return loss, correct


def train_step(training: Training, batch: Tensor, epoch: int, step: int, sums: StepSums) -> None:
    """One optimizer step on a global batch of sample indices (B,), of which this process computes its part."""
    accelerator = training.hardware.accelerator
    world_size = accelerator.num_processes
    steps = training.steps_per_epoch
    for group in training.optimizer.param_groups:
        group["lr"] = learning_rate(training.config, epoch * steps + step, training.config.epochs * steps)
    parts = local_slices(len(batch), accelerator.process_index, world_size, training.config.gradient_accumulation_steps)
    for part in parts:
        # Gradients are exchanged once a step. A process whose part is empty takes part in that all the same.
        with contextlib.nullcontext() if part is parts[-1] else accelerator.no_sync(training.model):
            images, labels = training.train.batch(batch[part])
            if training.model.training != bool(len(labels)):
                training.model.train(len(labels) > 0)  # an empty batch has no statistics to normalise by
            logits = training.model(training.augment(images, batch[part], epoch))
            loss = cross_entropy(logits, labels, reduction="sum")
            # The exchange averages over processes; this makes the sum of all parts the mean over the global batch.
            # The factor is NaN where the loss is not finite: so every process sees it in its gradients.
            accelerator.backward(loss * (world_size / len(batch) + 0 * loss.detach()))
        sums.losses[step].add_(loss.detach())
        sums.correct[step].add_((logits.argmax(dim=1) == labels).sum())
        sums.samples += len(labels)
    _note_bad_numbers(training, step, sums)
    training.optimizer.step()
    training.optimizer.zero_grad()
    if training.average:
        training.average.update(training.module, epoch * steps + step)


def _note_bad_numbers(training: Training, step: int, sums: StepSums) -> None:
    """Record, without waiting for the device, whether this step or one before it met an infinity or NaN."""
    if training.hardware.accelerator.scaler is None:
        parameters = training.optimizer.param_groups[0]["params"]
        numbers = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # Weights before a ReLU as well: oneDNN's makes 0 of a NaN, which then need not reach the loss.
        numbers += training.watched
        # What gradient scalers use: sets the flag to 1 where a number is infinite or NaN, and multiplies by one.
        torch._amp_foreach_non_finite_check_and_unscale_(
            numbers, training.found_bad, torch.ones_like(training.found_bad)
        )
    else:  # gradients of fp16 may overflow, which the scaler mends; losses may not
        training.found_bad.logical_or_(~sums.losses[step].isfinite())
    sums.bad[step] = training.found_bad


def _share_statistics(training: Training) -> None:
    """Give all processes the main one's running statistics of batch normalisation; each has seen its own samples."""
    if training.hardware.world_size > 1:
        for module in [training.module, *([training.average.module] if training.average else [])]:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)


def _finish_epoch(training: Training, progress: Progress, record: EpochRecord) -> None:
    """Move to the beginning of the next epoch, keeping the best weights so far."""
    loss = record.validation_loss
    if loss is not None and (progress.best is None or loss < progress.best.loss):
        weights = {name: tensor.detach().cpu().clone() for name, tensor in training.result.state_dict().items()}
        progress.best = Best(record.epoch, loss, weights)
    progress.history.append(record)
    progress.epoch += 1
    progress.step, progress.sums, progress.epoch_seconds = 0, None, 0.0
