"""Certificate, arithmetic: gradients, dropout, values that are not numbers, and losses in float64."""

import copy
import json
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mnist_accel.checks.trial_runs import REFERENCE_RUN, Trials
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import datasets
from mnist_accel.hardware.accelerator import accelerator_type, choose_precision
from mnist_accel.models import architectures
from mnist_accel.training import trace
from mnist_accel.training.loop import train_step
from mnist_accel.training.setup import Setup, prepare
from mnist_accel.training.train import start

REFERENCE_FILE = Path(__file__).with_name("reference.json")
BOUND_FACTOR = 2
ROUNDINGS = 8  # the limit for a layer's result, a few times the error from rounding inputs, weights and result
BATCH = 64
DRAWS = 12  # of noise; a fault shows in each of them
EXACT_RUNS: dict[str, dict[str, Any]] = {
    "cnn": {"recipe": "classic", "gradient_accumulation_steps": 2},
    "small-cnn": REFERENCE_RUN,
    "fast-cnn": {"recipe": "speedrun"},
    "normalised-cnn": {"recipe": "accurate"},
    "light-cnn": {"recipe": "quick"},
    "tiny-cnn": {"recipe": "tiny"},
}
LIMITS = {"steps": 1e-6, "epoch": 1e-9}  # relative; losses of steps are kept in float32, those of epochs in float64


@cache
def reference() -> dict[str, Any]:
    """The figures in reference.json; scripts/reference_curves.py makes the file."""
    return dict(json.loads(REFERENCE_FILE.read_text()))


def check(trials: Trials) -> tuple[bool, str, dict[str, Any]]:
    """Compare gradients and losses with float64 on the CPU, and look at dropout and at values that are not numbers."""
    cases = list(product(architectures.MODELS, precisions()))
    compared = [compare_layers(trials, *case) for case in cases]
    missed = [name for case in cases for name in missed_bad_numbers(trials, *case)]
    known = reference()["exact"]
    exact = {model: share_of_limit(exact_losses(trials, model), known[model]) for model in architectures.MODELS}
    share, mean, dropout_passed = check_dropout()
    gradient = max(compared, key=lambda one: float(one["error"] / one["bound"]))
    result = max(compared, key=lambda one: float(one["operator_share"]))
    passed = all(one["error"] <= one["bound"] and one["operator_share"] <= 1 for one in compared)
    passed = passed and max(exact.values()) <= 1 and not missed
    summary = (
        f"gradients of {gradient['model']} in {gradient['precision']}, layer {gradient['layer']}: error "
        f"{gradient['error']:.1e} (limit {gradient['bound']:.1e}); results of {result['model']} in "
        f"{result['precision']}, layer {result['operator']}: {result['operator_share']:.0%} of the limit; losses in "
        f"float64: {max(exact.values()):.0e} of it; dropout zeroes {share:.1%} of {TrainConfig().dropout:.0%}"
    )
    if missed:
        summary += f"; NaN is not noticed in {', '.join(missed)}"
    figures = {"gradients": compared, "missed_not_a_number": missed, "exact_losses": exact}
    return passed and dropout_passed, summary, figures | {"dropout": {"share": share, "mean": mean}}


def precisions() -> list[str]:
    """The precisions that this machine trains in: fp32 and its choice; on an NVIDIA GPU all."""
    kind = accelerator_type() or "cpu"
    if kind == "cuda":
        return ["no", "bf16", "fp16"]
    return sorted({"no", choose_precision("auto", kind)[0]}, reverse=True)


def set_up(trials: Trials, **settings: Any) -> Setup:
    """The objects of a training without dropout and augmentation."""
    config = TrainConfig(output_dir=trials.folder / "setup", dataset=trials.dataset, dropout=0.0, **settings)
    return prepare(config, start(config), datasets.load(config.dataset, trials.folder, lambda _: None))


def compare_layers(trials: Trials, model: str, precision: str) -> dict[str, Any]:
    """The layers with the largest errors of gradient and of result in a precision, relative to their norms in float64.

    The bound of gradients: rounding to a relative precision u turns the decisions of ReLU and pooling at a share of
    about u of the units of each layer, and with them the share u of the squared norm of the gradient. Rounding itself
    is smaller. In L layers with parameters that makes √(L u); `BOUND_FACTOR` covers the differences between networks.
    In float32, a single decision in a draw can already make more than that, so one draw within the bound is enough.
    """
    exact_setup = set_up(trials, model=model, dtype="float64", cpu=True)
    setup = set_up(trials, model=model, mixed_precision=precision)
    rounding, shares = trace.ROUNDING[trace.precision(setup.hardware, setup.config.dtype)], dict[str, float]()
    for name, module in setup.module.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(partial(compare_result, shares, name, rounding))
    for draw in range(DRAWS):
        exact, found = gradients(exact_setup, draw), gradients(setup, draw)
        errors = {name: float((found[name] - one).norm() / one.norm().clamp_min(1e-30)) for name, one in exact.items()}
        layer, bound = worst(errors), BOUND_FACTOR * (len(exact) * rounding) ** 0.5
        if errors[layer] <= bound:
            break
    operator = worst(shares)
    figures = {"model": model, "precision": precision, "layer": layer, "error": errors[layer], "draws": draw + 1}
    return figures | {"bound": bound, "operator": operator, "operator_share": shares[operator]}


def compare_result(
    shares: dict[str, float], name: str, rounding: float, layer: nn.Module, inputs: tuple[Tensor], result: Tensor
) -> None:
    """A forward hook: enter the error of a layer's result into `shares`, as a share of its limit.

    The error is relative to the norm of the result in float64 for the same inputs (B, …). The limit is `ROUNDINGS`
    times the `rounding` of the precision, and √n roundings of float32 for sums of n terms.
    """
    values, found = (tensor.to_dense() if tensor.is_mkldnn else tensor for tensor in (*inputs, result))
    exact = copy.deepcopy(layer).cpu().double()
    with torch.no_grad(), torch.autocast(values.device.type, enabled=False):
        wanted = exact.forward(values.detach().cpu().double())  # not by a call, which would call the hooks
    is_normalising = isinstance(layer, nn.BatchNorm2d)
    terms = values.numel() / values.shape[1] if is_normalising else next(layer.parameters())[0].numel()
    error = float((found.detach().cpu().double() - wanted).norm() / wanted.norm().clamp_min(1e-30))
    shares[name] = error / (ROUNDINGS * rounding + terms**0.5 * trace.ROUNDING["float32"])


def worst(errors: dict[str, float]) -> str:
    """The name of the largest error; NaN is larger than any number."""
    return max(errors, key=lambda name: (errors[name] != errors[name], errors[name]))


def gradients(setup: Setup, draw: int) -> dict[str, Tensor]:
    """The gradient of each parameter for the mean loss of the first digits with noise, float64 on the CPU."""
    images, labels = setup.train_data.batch(slice(0, BATCH))
    # Noise, because pooling picks any of several equal pixels.
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(draw), dtype=torch.float64)
    images = images + noise.to(images.device, images.dtype) / 10
    setup.model.train()
    setup.model.zero_grad()
    setup.hardware.accelerator.backward(cross_entropy(setup.model(images), labels))
    scaler = setup.hardware.accelerator.scaler
    scale = scaler.get_scale() if scaler else 1.0
    named = setup.module.named_parameters()
    return {name: parameter.grad.double().cpu() / scale for name, parameter in named if parameter.grad is not None}


def missed_bad_numbers(trials: Trials, model: str, precision: str) -> list[str]:
    """The layers in which a weight that is not a number goes unnoticed."""
    setup = set_up(trials, model=model, mixed_precision=precision)
    if setup.hardware.accelerator.scaler:  # with a gradient scaler, the loss alone is looked at
        return []
    missed, batch = [], torch.arange(BATCH, device=setup.hardware.device)
    for name, parameter in setup.module.named_parameters():
        setup.bad_numbers.found.zero_()
        before = parameter.detach().clone()
        parameter.data[(0,) * parameter.ndim] = torch.nan
        train_step(setup, batch, 0, 0, setup.empty_sums(1))
        if not setup.bad_numbers.found:
            missed.append(f"{model} {name} ({precision})")
        parameter.data.copy_(before)
    return missed


def check_dropout() -> tuple[float, float, bool]:
    """The share of zeros that dropout makes, the mean of its outputs for ones, and whether 5 standard errors hold."""
    wanted, units = TrainConfig().dropout, 2**20
    outputs = architectures.Dropout(wanted)(torch.ones(units))
    share, mean = float((outputs == 0).double().mean()), float(outputs.double().mean())
    error = (wanted * (1 - wanted) / units) ** 0.5
    return share, mean, abs(share - wanted) <= 5 * error and abs(mean - 1) <= 5 * error / (1 - wanted)


def exact_losses(trials: Trials, model: str) -> dict[str, list[float]]:
    """The losses of all steps, and those of the epoch in training and testing, of a run in float64."""
    settings = EXACT_RUNS[model] | {"model": model, "dtype": "float64", "dropout": 0.0, "epochs": 1, "batch_size": 37}
    is_cpu = accelerator_type() == "mps"  # it has no float64
    result = trials.train(f"exact-{model}", dataset=trials.dataset, cpu=is_cpu, **settings)
    return {"steps": list(result.step_losses), "epoch": [result.train_loss, result.test_loss]}


def share_of_limit(found: dict[str, list[float]], wanted: dict[str, list[float]]) -> float:
    """The largest relative difference between losses, divided by its limit; infinite for another number of steps."""
    if len(found["steps"]) != len(wanted["steps"]):
        return float("inf")
    shares = [np.abs(np.divide(found[name], wanted[name]) - 1) / limit for name, limit in LIMITS.items()]
    return float(np.concatenate(shares).max())
