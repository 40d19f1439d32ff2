import numpy as np
import pytest

from mnist_accel.data.sample_order import epoch_order, local_slices, steps_per_epoch


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("accumulation", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 2, 37, 128])
def test_the_parts_of_a_batch_hold_each_sample_once_and_in_order(
    world_size: int, accumulation: int, batch: int
) -> None:
    parts = [local_slices(batch, rank, world_size, accumulation) for rank in range(world_size)]
    seen = [index for step in range(accumulation) for rank in parts for index in range(batch)[rank[step]]]
    assert seen == list(range(batch))
    sizes = [len(range(batch)[part]) for rank in parts for part in rank]
    assert max(sizes) - min(sizes) <= 1


def test_the_order_of_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    order = epoch_order(1000, seed=3, epoch=2)
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert np.array_equal(order, epoch_order(1000, seed=3, epoch=2))
    assert not np.array_equal(order, epoch_order(1000, seed=3, epoch=1))
    assert not np.array_equal(order, epoch_order(1000, seed=2, epoch=2))


def test_a_short_last_batch_is_a_step() -> None:
    assert [steps_per_epoch(n, 128) for n in (1, 128, 129, 60000)] == [1, 1, 2, 469]
