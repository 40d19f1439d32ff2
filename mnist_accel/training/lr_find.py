"""Suggests a learning rate: a sweep over rising rates, of at most one epoch.

Source: L. N. Smith, Cyclical learning rates for training neural networks (2017), section 3.3. The rate between the
steepest fall and the minimum of the loss is taken, as measured in scripts/lr_find_grid.py.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter1d

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.sample_order import epoch_order
from mnist_accel.errors import UserError
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.training.bad_numbers import NumbersError
from mnist_accel.training.events import Observer
from mnist_accel.training.loop import train_step
from mnist_accel.training.setup import prepare
from mnist_accel.training.train import load_data, split, start

LOWEST, HIGHEST = 1e-5, 1.0
"""The first and the last rate of a sweep."""
LEAST_STEPS, MOST_STEPS = 20, 100
SMOOTHING = 0.15
"""Standard deviation of the smoothing of the losses, in powers of ten of the rate."""
CYCLE_FACTOR = 1.5
"""The peak of one cycle is higher than a constant rate: its mean is about half of it."""


@dataclass(frozen=True)
class LearningRates:
    """The result of a sweep.

    Attributes:
        lr: the suggested rate.
        rates: of each step, rising.
        losses: mean training loss of each step in nats.
    """

    lr: float
    rates: list[float]
    losses: list[float]


def find_learning_rate(config: TrainConfig, observer: Observer) -> tuple[LearningRates, Hardware]:
    """Make up to `MOST_STEPS` steps with rising rates, and suggest one. Nothing is kept of this training.

    Every process of a distributed run calls this.

    Raises:
        UserError: the data or the machine do not allow it, or an epoch has too few whole batches.
    """
    hardware = start(config)
    with hardware.watching():
        dataset, _ = split(config, load_data(config.dataset, config.data_dir, hardware, observer))
        steps = min(MOST_STEPS, len(dataset.train) // config.batch_size)
        if steps < LEAST_STEPS:
            few = f"--lr-find: an epoch has {steps} whole batches of {config.batch_size}"
            raise UserError(few, f"lower --batch-size; {LEAST_STEPS} are needed")
        setup = prepare(config, hardware, dataset)
        order = torch.from_numpy(epoch_order(len(setup.train_data), config.seed, 0)).to(hardware.device)
        rates, sums = np.geomspace(LOWEST, HIGHEST, steps), setup.empty_sums()
        setup.model.train()
        for step, rate in enumerate(rates):
            setup.config = config.with_changes(lr=float(rate), schedule="constant")
            train_step(setup, order[step * config.batch_size : (step + 1) * config.batch_size], 0, step, sums)
        losses, _, bad = hardware.accelerator.reduce(sums, "sum")[:, :steps].double().cpu().numpy()
    whole = int(np.argmax(np.append(bad, 1) > 0))  # steps before the first bad number
    rates, losses = rates[:whole], losses[:whole] / config.batch_size
    return LearningRates(suggestion(config, rates, losses), rates.tolist(), losses.tolist()), hardware


def suggestion(config: TrainConfig, rates: npt.NDArray[Any], losses: npt.NDArray[Any]) -> float:
    """The suggested rate from a sweep, rounded to two digits.

    Args:
        rates: rising by a constant factor, (steps,).
        losses: of each step, (steps,).

    Raises:
        NumbersError: there are too few losses, or they do not fall.
    """
    if len(rates) < LEAST_STEPS // 2:
        raise NumbersError("--lr-find: the loss is infinite or not a number at once", "check the data and the network")
    logarithms = np.log10(rates)
    smooth = gaussian_filter1d(np.log(losses), SMOOTHING / (logarithms[1] - logarithms[0]), mode="nearest")
    lowest = int(np.argmin(smooth))
    steepest = int(np.argmin(np.gradient(smooth)[: lowest + 1]))
    factor = CYCLE_FACTOR if config.schedule == "one-cycle" else 1
    return float(f"{factor * 10 ** ((logarithms[lowest] + logarithms[steepest]) / 2):.1e}")
