"""The training loop: fit → train_epoch → train_step. Files, terminal and pictures are behind `observer` and `guard`."""

import functools
import time
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, distributed

from mnist_accel.data.batches import epoch_order, local_slices
from mnist_accel.training.events import EpochRecord, Observer
from mnist_accel.training.guard import Guard
from mnist_accel.training.loss import mean_for_all_processes, summed_loss
from mnist_accel.training.metrics import Predictions, predict_dataset
from mnist_accel.training.optimizer import learning_rate, set_learning_rate
from mnist_accel.training.setup import Progress, Setup


def fit(setup: Setup, progress: Progress, observer: Observer, guard: Guard) -> Predictions:
    """Train from `progress` to the last epoch, and predict the test set. It is only reported; it decides nothing."""
    predictions = None
    while not progress.is_finished(setup.config):
        observer.part_started("steps")
        observer.epoch_started(progress.epoch, progress.step)
        totals = train_epoch(setup, progress, observer, guard)
        observer.part_started("evaluation")
        predictions = predict_dataset(setup.final_module, setup.validation_data or setup.test_data, setup.hardware)
        finish_epoch(setup, progress, totals, predictions)
        observer.epoch_finished(progress.history[-1], progress.step_losses[-setup.steps_per_epoch :])
        guard.after_epoch(setup, progress)
    observer.part_started("evaluation")
    if setup.config.select == "best":
        setup.final_module.load_state_dict(progress.best_weights)
    if predictions is None or setup.validation_data:  # else the last epoch's are those of the final weights
        predictions = predict_dataset(setup.final_module, setup.test_data, setup.hardware)
    return predictions


def train_epoch(setup: Setup, progress: Progress, observer: Observer, guard: Guard) -> Tensor:
    """Train the steps that are left of the current epoch; the sums of all its steps over all processes, (3, steps)."""
    config, steps = setup.config, setup.steps_per_epoch
    order = torch.from_numpy(epoch_order(len(setup.train_data), config.seed, progress.epoch)).to(setup.hardware.device)
    sums = progress.sums = setup.empty_sums(steps) if progress.sums is None else progress.sums
    seconds_before, began = progress.epoch_seconds, time.perf_counter()
    for step in range(progress.step, steps):
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        train_step(setup, batch, progress.epoch, step, sums)
        progress.step = step + 1
        progress.epoch_seconds = seconds_before + time.perf_counter() - began
        guard.after_step(setup, progress)
        observer.step_finished(step, sums)
    share_running_statistics(setup)
    totals: Tensor = setup.hardware.accelerator.reduce(sums, "sum").cpu()  # waits for the device
    progress.epoch_seconds = seconds_before + time.perf_counter() - began
    return totals


def train_step(setup: Setup, batch: Tensor, epoch: int, step: int, sums: Tensor) -> None:
    """Make one optimizer step on a global batch of sample indices (B,), and enter its figures into `sums`."""
    total_step, total_steps = epoch * setup.steps_per_epoch + step, setup.config.epochs * setup.steps_per_epoch
    set_learning_rate(setup.optimizer, learning_rate(setup.config, total_step, total_steps))
    setup.augment.start_epoch(epoch)
    sums[:, step] = setup.replay(functools.partial(update_weights, setup), batch)
    if setup.weight_average:
        setup.weight_average.update(setup.module, total_step)


def update_weights(setup: Setup, batch: Tensor) -> Tensor:
    """Update the weights by a global batch, of which this process computes its parts; its column of `Progress.sums`.

    With `cuda_graph` a recording is replayed, so whatever changes from step to step must lie in tensors.
    """
    hardware, config = setup.hardware, setup.config
    loss_sum, correct, not_finite = sums = setup.empty_sums(1)[:, 0]  # scalars on the device
    parts = local_slices(len(batch), hardware.rank, hardware.world_size, config.gradient_accumulation_steps)
    for part in parts:
        images, labels = setup.train_data.batch(batch[part])
        # Not in training mode for the empty part that a process may get of a short batch: the exchange needs every
        # process, but batch normalisation has no statistics of an empty batch.
        setup.model.train(len(labels) > 0)
        with exchange_gradients(setup, is_last=part is parts[-1]):
            logits = setup.model(setup.augment(images, batch[part]))
            loss = summed_loss(logits, labels, config.label_smoothing)
            hardware.accelerator.backward(mean_for_all_processes(loss, len(batch), hardware.world_size))
        # Without label smoothing, as the test loss.
        loss_sum += summed_loss(logits.detach(), labels, 0.0) if config.label_smoothing else loss.detach()
        correct += (logits.argmax(dim=1) == labels).sum()
    not_finite.copy_(setup.bad_numbers.check(loss_sum))
    setup.optimizer.step()
    setup.optimizer.zero_grad()
    return sums


def exchange_gradients(setup: Setup, *, is_last: bool) -> AbstractContextManager[None]:
    """Exchange gradients once per step, after the last part; an earlier part only accumulates them."""
    context: AbstractContextManager[None] = setup.hardware.accelerator.no_sync(setup.model)
    return nullcontext() if is_last else context


def share_running_statistics(setup: Setup) -> None:
    """Copy the running statistics of batch normalisation from the main process, as each has seen other samples."""
    if setup.hardware.world_size > 1:
        for module in dict.fromkeys([setup.module, setup.final_module]):  # one and the same without an average
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)


def finish_epoch(setup: Setup, progress: Progress, totals: Tensor, predictions: Predictions) -> None:
    """Record the epoch from its `totals` (3, steps) and `predictions` of the held-out samples, else of the test set."""
    config, samples, steps = setup.config, len(setup.train_data), setup.steps_per_epoch
    totals = totals.double()
    train_loss, train_accuracy, _ = (totals.sum(dim=1) / samples).tolist()
    batch_sizes = np.diff(range(0, samples, config.batch_size), append=samples)
    held_out = setup.validation_data is not None
    record = EpochRecord(
        epoch=progress.epoch + 1,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        test_loss=None if held_out else predictions.loss,
        test_accuracy=None if held_out else predictions.accuracy,
        lr=learning_rate(config, (progress.epoch + 1) * steps - 1, config.epochs * steps),
        images_per_second=samples / progress.epoch_seconds,
        train_seconds=progress.epoch_seconds,
        validation_loss=predictions.loss if held_out else None,
        validation_accuracy=predictions.accuracy if held_out else None,
    )
    progress.history.append(record)
    progress.step_losses = np.append(progress.step_losses, (totals[0].numpy() / batch_sizes).astype(np.float32))
    progress.step, progress.sums, progress.epoch_seconds = 0, None, 0.0
    if held_out and progress.best_epoch == progress.epoch:
        progress.best_weights = {name: tensor.cpu().clone() for name, tensor in setup.final_module.state_dict().items()}
