"""Which samples each process sees in each step: a function of (seed, epoch) alone, whatever the number of processes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def epoch_order(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of the training samples in one epoch: a permutation of 0 … samples - 1."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Optimizer steps of an epoch; the last one may be short."""
    return -(-samples // batch_size)


def local_slices(batch: int, rank: int, world_size: int, accumulation_steps: int) -> list[slice]:
    """This process' part of a global batch, a slice of it for each accumulation step.

    The global batch is cut into accumulation_steps × world_size neighbouring parts whose sizes differ by at most one.
    Together they hold each sample once. A part may be empty when the batch is short.

    Args:
        batch: samples in the global batch.
    """
    parts = accumulation_steps * world_size
    numbers = range(rank, parts, world_size)
    return [slice(part * batch // parts, (part + 1) * batch // parts) for part in numbers]
