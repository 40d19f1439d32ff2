import numpy as np
import pytest

from mnist_accel.data.digits import Digits, split_off
from mnist_accel.errors import DataError

LABELS = np.random.default_rng(0).permutation(np.arange(4000) % 10)
DIGITS = Digits(np.random.default_rng(1).integers(0, 256, (4000, 28, 28), dtype=np.uint8), LABELS)


@pytest.mark.parametrize(("size", "expected"), [(1000, 100), (10, 1), (25, 2)])
def test_a_subset_is_balanced_and_depends_on_the_seed_alone(size: int, expected: int) -> None:
    subset, rest = split_off(DIGITS, size, 1)
    counts = np.bincount(subset.labels, minlength=10)
    assert (len(subset), len(rest), counts.min()) == (size, 4000 - size, expected)
    assert counts.max() - counts.min() <= 1
    assert np.array_equal(subset.images, split_off(DIGITS, size, 1)[0].images)
    assert not np.array_equal(subset.images, split_off(DIGITS, size, 2)[0].images)


def test_a_subset_larger_than_the_data_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"--validation-samples 4001.*give at most 4000"):
        split_off(DIGITS, 4001, 0)
