from pathlib import Path

import numpy as np

from mnist_accel.data import datasets, named_sets


def test_what_was_read_ahead_is_given_to_the_next_load_alone(tmp_path: Path) -> None:
    datasets.read_ahead("mnist", tmp_path, print)
    first, second = (datasets.load("mnist", tmp_path, print) for _ in range(2))
    assert first.checksums == second.checksums
    assert np.array_equal(first.train.images, second.train.images)
    assert first.train.images is not second.train.images


def test_a_damaged_file_is_told_as_without_reading_ahead(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / named_sets.NAMED_SETS["mnist"].files[-1]).write_bytes(b"damaged")
    notices: list[str] = []
    datasets.read_ahead("mnist", tmp_path, notices.append)
    assert datasets.load("mnist", tmp_path, print).source == "the mnist-accel package"
    assert "damaged" in notices[0]
