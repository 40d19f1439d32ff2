from pathlib import Path

import pytest
import torch

from mnist_accel.checks.bench_worker import plain_cnn
from mnist_accel.config.settings import MODELS
from mnist_accel.errors import WeightsError
from mnist_accel.models import architectures as models


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cnn", 594_922),
        ("small-cnn", 422_122),
        ("fast-cnn", 38_714),
        ("normalised-cnn", 159_658),
        ("light-cnn", 66_426),
        ("tiny-cnn", 3_154),
    ],
)
def test_the_networks_have_the_published_sizes_and_give_ten_logits(name: str, parameters: int) -> None:
    model = models.build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_the_names_that_the_settings_know_are_those_that_there_are() -> None:
    assert tuple(models.MODELS) == MODELS


def test_the_cnn_is_the_same_function_as_the_one_written_by_hand() -> None:
    torch.manual_seed(0)
    ours, plain = models.build("cnn").double(), plain_cnn().double().eval()
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


def test_networks_have_the_layers_that_their_description_counts() -> None:
    for name, expected in {"cnn": "Four", "normalised-cnn": "Five", "tiny-cnn": "Three"}.items():
        model = models.build(name)
        convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in model.modules())
        assert (models.MODELS[name].__doc__ or "").split()[0] == expected
        assert convolutions == {"Three": 3, "Four": 4, "Five": 5}[expected]


@pytest.mark.parametrize("name", [*MODELS, None])
def test_weights_go_into_the_architecture_that_they_fit(name: str | None) -> None:
    for known in MODELS if name is None else [name]:
        model = models.build(known, classes=26)
        found, loaded = models.from_state(model.state_dict(), name, Path("some.pth"))
        assert found == known
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_weights_that_do_not_fit_are_refused_with_the_difference() -> None:
    state = models.build("cnn").state_dict()
    del state["features.0.bias"]
    with pytest.raises(WeightsError, match=r"fit no model; give weights of cnn or small-cnn"):
        models.from_state(state, None, Path("some.pth"))
    with pytest.raises(WeightsError, match=r"Missing key.*features\.0\.bias.*give weights of cnn"):
        models.from_state(state, "cnn", Path("some.pth"))
    with pytest.raises(WeightsError, match="did you mean cnn"):
        models.from_state(state, "cmn", Path("some.pth"))


def test_weights_of_a_large_foreign_network_are_refused_in_one_short_line() -> None:
    names = ["conv1.weight", *(f"layer{block}.{layer}.conv.weight" for block in range(4) for layer in range(30))]
    with pytest.raises(WeightsError) as caught:
        models.from_state({name: torch.zeros(1) for name in names}, None, Path("resnet.pth"))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["fast-cnn", "light-cnn"])
def test_fast_networks_see_the_middle_of_an_image_alone(name: str) -> None:
    model, images = models.build(name).eval(), torch.randn(2, 1, 28, 28)
    other = torch.randn(2, 1, 28, 28)
    other[:, :, 2:-2, 2:-2] = images[:, :, 2:-2, 2:-2]
    assert torch.equal(model(images), model(other))
    other[:, :, 2, 2] += 1
    assert not torch.equal(model(images), model(other))
