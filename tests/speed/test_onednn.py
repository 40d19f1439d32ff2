import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_accel.models import architectures
from mnist_accel.speed import onednn, prepare_model

CPU = torch.device("cpu")
needs_layout = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX512"), reason="oneDNN's layout is used with AVX-512 only"
)


class Plain(nn.Module):
    """An architecture of plain layers, with settings that the package's own models do not use."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(
                *(nn.Conv2d(1, 12, 5, stride=2, padding=2), nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.ReLU()),
                *(nn.Conv2d(12, 24, 3, groups=3, dilation=2), nn.BatchNorm2d(24, momentum=None), nn.ReLU(inplace=True)),
            ),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(24 * 4 * 4, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(images))
        return logits


MODELS = [*architectures.MODELS, "plain layers"]


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return (Plain() if name == "plain layers" else architectures.build(name)).train()


def layouts(model: nn.Module) -> list[bool]:
    """For each layer of a chain, whether it computed in oneDNN's layout."""
    found: list[bool] = []
    handles = [
        layer.register_forward_hook(lambda _layer, _images, result: found.append(result.is_mkldnn))
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d)
    ]
    model(torch.rand(2, 1, 28, 28))
    for handle in handles:
        handle.remove()
    return found


def gradients(model: nn.Module, precision: torch.dtype) -> Tensor:
    """The gradients of one batch, in one vector."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(16, 1, 28, 28, generator=generator).round(decimals=1)  # equal neighbours: ties in pooling
    labels = torch.randint(0, 10, (16,), generator=generator)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        logits = model(images)
    cross_entropy(logits.float(), labels).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@needs_layout
@pytest.mark.parametrize("name", MODELS)
def test_gradients_differ_from_those_of_plain_layers_by_rounding_only(name: str) -> None:
    plain, prepared = build(name), build(name)
    prepare_model(prepared, CPU, enabled=True)
    expected = gradients(plain, torch.float32)
    assert distance(gradients(prepared, torch.float32), expected) < 1e-4
    bf16_error = distance(gradients(plain, torch.bfloat16), expected)
    assert distance(gradients(prepared, torch.bfloat16), expected) < 1.2 * bf16_error


@needs_layout
@pytest.mark.parametrize("name", [name for name in MODELS if name != "tiny-cnn"])
def test_a_model_of_plain_layers_trains_in_onednn_layout_and_is_evaluated_in_that_of_torch(name: str) -> None:
    """All but tiny-cnn, which would be slower: its 8 channels fill half a block of 16."""
    model = build(name)
    assert not any(layouts(model))
    prepare_model(model, CPU, enabled=True)
    assert all(layouts(model))
    assert not any(layouts(model.eval()))


def test_the_switch_and_other_devices_leave_the_model_alone() -> None:
    model = build("cnn")
    prepare_model(model, CPU, enabled=False)
    prepare_model(model, torch.device("cuda"), enabled=True)
    assert {type(module) for module in model.modules() if isinstance(module, nn.Sequential)} == {nn.Sequential}


@pytest.mark.parametrize(
    "layers",
    [
        [nn.ReLU()],
        [nn.MaxPool2d(2), nn.Conv2d(1, 4, 3)],
        [nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True)],
        [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.ReLU(inplace=True)],
        [nn.Conv2d(1, 4, 3), nn.GELU()],
        [nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect")],
        [nn.Conv2d(1, 4, 3, padding="same")],
        [nn.Conv2d(1, 4, 3), nn.MaxPool2d(2, dilation=2)],
        [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False)],
    ],
)
def test_chains_that_the_layout_does_not_support_stay_plain(layers: list[nn.Module]) -> None:
    chain = nn.Sequential(*layers)
    prepare_model(chain, CPU, enabled=True)
    assert type(chain) is nn.Sequential


@needs_layout
def test_copies_pickles_and_parameter_names_of_a_prepared_model_are_right() -> None:
    model = build("cnn")
    names = list(model.state_dict())
    prepare_model(model, CPU, enabled=True)
    assert list(model.state_dict()) == names
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for copied in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.zero_()  # a copy that computed with the original's weights would give other logits
        assert not copied(torch.ones(2, 1, 28, 28)).any()
        assert all(layouts(copied))


@needs_layout
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_and_empty_batches_keep_the_layout_of_torch(dtype: torch.dtype) -> None:
    assert not onednn.is_faster(dtype)
    chain = nn.Sequential(nn.Conv2d(1, 4, 3))
    prepare_model(chain, CPU, enabled=True)
    assert chain(torch.zeros(0, 1, 28, 28)).shape == (0, 4, 26, 26)
    assert chain.double()(torch.zeros(1, 1, 28, 28, dtype=torch.float64)).dtype == torch.float64


@needs_layout
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", MODELS)
def test_a_bad_number_in_any_weight_reaches_the_loss_although_onednns_relu_hides_it(
    name: str, bad: float, precision: torch.dtype
) -> None:
    for parameter_name, _ in build(name).named_parameters():
        model = build(name)
        prepare_model(model, CPU, enabled=True)
        with torch.no_grad():
            model.get_parameter(parameter_name).view(-1)[0] = bad
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            loss = cross_entropy(model(torch.zeros(8, 1, 28, 28)), torch.arange(8))
        assert not loss.isfinite(), parameter_name


@needs_layout
def test_the_look_for_bad_numbers_changes_no_bit_not_even_the_sign_of_zero() -> None:
    images = torch.tensor([-0.0, 0.0, 1e-45, 3.0]).view(1, 1, 2, 2)
    chain = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    with torch.no_grad():
        chain[0].weight.fill_(1.0)  # type: ignore[operator]
    prepare_model(chain, CPU, enabled=True)
    with torch.no_grad():
        unchecked = chain[0](images.to_mkldnn()).to_dense()
        assert torch.equal(chain(images).view(torch.int32), unchecked.view(torch.int32))


def test_preparing_a_model_draws_no_random_numbers() -> None:
    chain = nn.Sequential(nn.Conv2d(1, 4, 3))
    before = torch.get_rng_state()
    prepare_model(chain, CPU, enabled=True)
    assert torch.equal(torch.get_rng_state(), before)
