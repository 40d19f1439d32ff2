"""The convolution of grey images as a matrix product."""

import copy

import pytest
import torch
from torch import nn

from mnist_accel.models.architectures import MODELS, build
from mnist_accel.speed import prepare_model
from mnist_accel.speed.convolutions import GreyConvolution


@pytest.mark.parametrize(("kernel", "stride", "bias"), [(5, 1, True), (3, 1, False), ((3, 4), (1, 2), True)])
def test_the_product_is_the_convolution(kernel: int, stride: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(1, 6, kernel, stride, bias=bias).double()
    grey = copy.deepcopy(plain)
    grey.__class__ = GreyConvolution
    assert isinstance(grey, GreyConvolution)
    images = torch.randn(4, 1, 28, 28, dtype=torch.float64)
    expected, found = plain(images), grey.product(images)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    for parameter, other in zip(grey.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


@pytest.mark.parametrize("name", [*MODELS])
def test_on_a_gpu_only_the_first_convolution_becomes_a_product(name: str) -> None:
    model = build(name)
    parameters = list(model.state_dict())
    prepare_model(model, torch.device("cuda"), enabled=True)
    products = [isinstance(layer, GreyConvolution) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    assert products == [True] + [False] * (len(products) - 1)
    assert list(model.state_dict()) == parameters


def test_a_padded_convolution_stays_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding="valid"))
    prepare_model(model, torch.device("cuda"), enabled=True)
    assert not any(isinstance(layer, GreyConvolution) for layer in model)
