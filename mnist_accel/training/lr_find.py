"""Suggests a learning rate: short trainings with rising rates on the same samples, of at most one epoch together."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.batches import epoch_order
from mnist_accel.data.digits import DataSet, select
from mnist_accel.errors import UserError
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.training.events import Observer
from mnist_accel.training.loop import train_step
from mnist_accel.training.setup import prepare
from mnist_accel.training.train import load_data, split, start

RATES = np.geomspace(1e-4, 1e-1, 9)
LEAST_STEPS, MOST_STEPS = 4, 50  # of the training with one rate


@dataclass(frozen=True)
class LearningRates:
    """The result of a sweep."""

    lr: float  # the suggested rate
    rates: list[float]  # those that were tried, rising
    losses: list[float | None]  # mean of the last quarter of the steps with each rate, in nats; None if infinite


def find_learning_rate(config: TrainConfig, observer: Observer) -> tuple[LearningRates, Hardware]:
    """Train the first steps of an epoch with each rate, and suggest the best; see `api.find_learning_rate`."""
    hardware = start(config)
    dataset = load_data(config.dataset, config.data_dir, hardware, observer, skip_damaged=config.skip_damaged)
    dataset = split(config, dataset)
    batches = len(dataset.train) // config.batch_size
    steps = min(MOST_STEPS, batches // len(RATES))
    if steps < LEAST_STEPS:
        few = f"--lr-find: an epoch has {batches} whole batches of {config.batch_size}"
        raise UserError(few, f"lower --batch-size; {LEAST_STEPS * len(RATES)} are needed")
    order = epoch_order(len(dataset.train), config.seed, 0)
    dataset = dataclasses.replace(dataset, train=select(dataset.train, order[: steps * config.batch_size]))
    losses = np.array([_loss(config.with_changes(lr=rate, epochs=1), hardware, dataset) for rate in RATES.tolist()])
    shown = [loss if np.isfinite(loss) else None for loss in losses.tolist()]
    return LearningRates(suggestion(losses), RATES.tolist(), shown), hardware


def _loss(config: TrainConfig, hardware: Hardware, dataset: DataSet) -> float:
    """The mean loss of the last quarter of the steps of an epoch of whole batches; infinite after a bad number."""
    setup = prepare(config, hardware, dataset)
    sums = setup.empty_sums(setup.steps_per_epoch)
    for step, batch in enumerate(torch.arange(len(dataset.train), device=hardware.device).split(config.batch_size)):
        train_step(setup, batch, 0, step, sums)
    totals = hardware.accelerator.reduce(sums, "sum")[:, -max(2, setup.steps_per_epoch // 4) :].cpu()
    return float("inf") if totals[2].any() else float(totals[0].mean()) / config.batch_size


def suggestion(losses: npt.NDArray[np.float64]) -> float:
    """The minimum of the parabola through the lowest of the losses with `RATES` and its neighbours, in logarithms."""
    if not np.isfinite(losses).any():
        problem = "--lr-find: the loss is infinite or not a number with all rates"
        raise UserError(problem, "check the data and the network")
    lowest = int(np.argmin(losses))
    before, here, after = np.log(np.pad(losses, 1, mode="reflect")[lowest : lowest + 3].clip(max=2 * losses[lowest]))
    curvature = before - 2 * here + after
    offset = (before - after) / (2 * curvature) if curvature else 0.0
    return float(f"{RATES[lowest] * (RATES[1] / RATES[0]) ** offset:.1e}")
