from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from mnist_accel import TrainConfig, train
from mnist_accel.training.loss import summed_loss
from tests.conftest import small_mnist


def test_without_label_smoothing_the_loss_is_the_cross_entropy_in_all_bits() -> None:
    logits, labels = torch.randn(37, 10), torch.arange(37) % 10
    assert torch.equal(summed_loss(logits, labels, 0.0), cross_entropy(logits, labels, reduction="sum"))


@pytest.mark.parametrize("label_smoothing", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("classes", [2, 10, 62])
def test_label_smoothing_asks_for_a_high_probability_of_the_label(label_smoothing: float, classes: int) -> None:
    probabilities = torch.full((1, classes), 0.001 / classes, dtype=torch.float64)
    probabilities[0, 1] += 0.999
    logits = probabilities.log().requires_grad_()
    summed_loss(logits, torch.tensor([1]), label_smoothing).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-12  # the loss is lowest there
    assert summed_loss(logits, torch.tensor([1]), label_smoothing) > cross_entropy(logits, torch.tensor([1]))


def test_the_reported_loss_of_training_has_no_label_smoothing(tmp_path: Path) -> None:
    # The rate is so small that the weights stay as they are.
    config = TrainConfig(recipe="speedrun", dataset=small_mnist(512, 100), lr=1e-30, label_smoothing=0.0)
    plain = train(config.with_changes(output_dir=tmp_path / "plain"))
    smooth = train(config.with_changes(output_dir=tmp_path / "smooth", label_smoothing=0.3))
    assert smooth.train_loss == plain.train_loss
