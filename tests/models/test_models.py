from __future__ import annotations

import pytest
import torch

from mnist_accel.checks import baselines
from mnist_accel.config.settings import MODELS
from mnist_accel.models import architectures as models


@pytest.mark.parametrize(
    ("name", "parameters"), [("cnn", 594_922), ("small-cnn", 422_122), ("normalised-cnn", 159_658)]
)
def test_the_networks_have_the_published_sizes_and_give_ten_logits(name: str, parameters: int) -> None:
    model = models.build(name)
    assert models.parameter_count(model) == parameters
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_the_names_that_the_settings_know_are_those_that_there_are() -> None:
    assert tuple(models.MODELS) == MODELS


def test_the_cnn_is_the_same_function_as_the_one_written_by_hand() -> None:
    torch.manual_seed(0)
    ours, plain = models.build("cnn").double(), baselines.plain_cnn().double().eval()
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(8, 1, 28, 28, dtype=torch.float64)
    assert torch.equal(ours(images), plain(images))
    for model in (ours, plain):
        model(images).square().sum().backward()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 0.9])
def test_dropout_drops_that_share_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    dropout = models.Dropout(probability)
    units = torch.ones(1001, 999, dtype=torch.float64)
    dropped = dropout(units)
    share = float((dropped == 0).double().mean())
    assert share == pytest.approx(probability, abs=5 * (0.25 / units.numel()) ** 0.5)
    assert dropped.max() == pytest.approx(1 / (1 - probability), rel=1e-3)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.02)
    assert torch.equal(dropout.eval()(units), units)
