from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.datasets import DIGITS, DataSet, Digits
from mnist_accel.hardware import accelerator as hardware
from mnist_accel.models import architectures as models
from mnist_accel.speed import onednn as layout
from mnist_accel.training import loop as engine
from mnist_accel.training.events import StepSums

needs_layout = pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX512"), reason="not used on this processor"
)


def gradients(model: nn.Module, precision: torch.dtype) -> Tensor:
    """Of a batch of images, all in one vector."""
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
@pytest.mark.parametrize("name", models.MODELS)
def test_gradients_in_onednn_layout_are_those_of_torch_up_to_rounding(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = models.build(name).train()
    fp32, bf16 = gradients(model, torch.float32), gradients(model, torch.bfloat16)
    monkeypatch.setattr(layout, "is_wanted", False)
    expected = gradients(model, torch.float32)
    assert distance(fp32, expected) < 1e-4
    assert distance(bf16, expected) < 1.2 * distance(gradients(model, torch.bfloat16), expected)


@needs_layout
@pytest.mark.parametrize("name", models.MODELS)
def test_training_computes_in_onednn_layout_and_evaluation_in_that_of_torch(name: str) -> None:
    model = models.build(name)
    layouts: list[bool] = []
    features = model.features
    assert isinstance(features, nn.Sequential)
    for layer in features:
        layer.register_forward_hook(lambda _layer, _images, result: layouts.append(result.is_mkldnn))
    model.train()(torch.zeros(2, 1, 28, 28))
    model.eval()(torch.zeros(2, 1, 28, 28))
    assert layouts == [True] * len(features) + [False] * len(features)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_and_empty_batches_keep_the_layout_of_torch(dtype: torch.dtype) -> None:
    assert not layout.is_faster_blocked(torch.zeros(0, 1, 28, 28), torch.float32)
    assert not layout.is_faster_blocked(torch.zeros(2, 1, 28, 28, dtype=dtype), dtype)


@pytest.mark.parametrize("recipe", ["seed", "speedrun", "accurate"])
@pytest.mark.parametrize("precision", ["no", "auto"])
def test_a_nan_in_any_weight_is_found_though_onednn_drops_it(recipe: str, precision: str, tmp_path: Path) -> None:
    config = TrainConfig(recipe=recipe, output_dir=tmp_path, cpu=True, mixed_precision=precision)
    digits = Digits(np.zeros((8, 28, 28), dtype=np.uint8), np.arange(8))
    machine = hardware.start(config)
    parameters = [name for name, _ in models.build(config.model).named_parameters() if name.startswith("features")]
    for name in parameters:
        training = engine.prepare(config, machine, DataSet("black", digits, digits, DIGITS, "", {}))
        training.model.train()
        with torch.no_grad():
            training.module.get_parameter(name)[0] = torch.nan
        engine.train_step(training, torch.arange(8), 0, 0, StepSums(torch.zeros(3, 1, dtype=torch.float64)))
        assert training.found_bad == 1, name
