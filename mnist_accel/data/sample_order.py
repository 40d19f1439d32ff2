"""The samples of each process in each step. The order depends only on the seed and the epoch."""

import numpy as np
import numpy.typing as npt


def epoch_order(samples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The order of the training samples in one epoch: a permutation of 0 … samples - 1."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Optimizer steps in an epoch. The last batch may be short."""
    return -(-samples // batch_size)


def local_slices(batch: int, rank: int, world_size: int, accumulation_steps: int) -> list[slice]:
    """The part of a global batch that one process computes: one slice for each accumulation step.

    The `batch` samples of the global batch are divided into accumulation_steps × world_size consecutive parts whose
    sizes differ by at most one. Each sample is in exactly one part. Parts of a short batch may be empty.
    """
    parts = accumulation_steps * world_size
    return [slice(part * batch // parts, (part + 1) * batch // parts) for part in range(rank, parts, world_size)]
