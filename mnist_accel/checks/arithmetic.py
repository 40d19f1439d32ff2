"""Certificate, arithmetic: gradients, dropout, values that are not numbers, and losses in float64."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mnist_accel.checks.trial_runs import Trials
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import datasets
from mnist_accel.data.digits import DataSet
from mnist_accel.hardware.accelerator import accelerator_type
from mnist_accel.hardware.precision import choose_precision
from mnist_accel.models import architectures
from mnist_accel.training.loop import train_step
from mnist_accel.training.setup import Setup, prepare
from mnist_accel.training.train import start

REFERENCE_FILE = Path(__file__).with_name("reference.json")
SIGNIFICANT_BITS = {"no": 24, "tf32": 11, "bf16": 8, "fp16": 11}
BOUND_FACTOR = 2
BATCH = 64
EXACT_RUNS: dict[str, dict[str, Any]] = {
    "cnn": {"recipe": "classic", "gradient_accumulation_steps": 2},
    "small-cnn": {"recipe": "speedrun"},
    "normalised-cnn": {"recipe": "accurate"},
}
STEP_LIMIT, EPOCH_LIMIT = 1e-6, 1e-9
"""Relative. The losses of steps are kept in float32, those of epochs in float64."""


@cache
def reference() -> dict[str, Any]:
    """The figures in reference.json; scripts/reference_curves.py makes the file."""
    return dict(json.loads(REFERENCE_FILE.read_text()))


def check(trials: Trials) -> tuple[bool, str, dict[str, Any]]:
    """Compare gradients and losses with float64 on the CPU, and look at dropout and at values that are not numbers."""
    dataset = datasets.load(trials.dataset, trials.folder, lambda _: None)
    figures: dict[str, Any] = {"gradients": [], "missed_not_a_number": [], "exact_losses": {}}
    for precision in precisions():
        for model in architectures.MODELS:
            figures["gradients"].append(compare_gradients(trials, dataset, model, precision))
            figures["missed_not_a_number"] += missed_bad_numbers(trials, dataset, model, precision)
    figures["dropout"] = dropout_figures()
    for model in architectures.MODELS:
        figures["exact_losses"][model] = share_of_limit(exact_losses(trials, model), reference()["exact"][model])
    worst = max(figures["gradients"], key=lambda one: float(one["error"] / one["bound"]))
    exact = max(figures["exact_losses"].values())
    passed = (
        all(one["error"] <= one["bound"] for one in figures["gradients"])
        and exact <= 1
        and not figures["missed_not_a_number"]
    )
    summary = (
        f"gradients of {worst['model']} in {worst['precision']}, layer {worst['layer']}: error {worst['error']:.1e} "
        f"(limit {worst['bound']:.1e}); losses in float64 differ by {exact:.0e} of the limit; "
        f"dropout zeroes {figures['dropout']['share']:.1%} of {figures['dropout']['wanted']:.0%}"
    )
    if figures["missed_not_a_number"]:
        summary += f"; NaN is not noticed in {', '.join(figures['missed_not_a_number'])}"
    return passed and figures["dropout"]["passed"], summary, figures


def precisions() -> list[str]:
    """The precisions that this machine trains in: fp32 and its choice; on an NVIDIA GPU all."""
    kind = accelerator_type() or "cpu"
    if kind == "cuda":
        return ["no", "bf16", "fp16"]
    return sorted({"no", choose_precision("auto", kind)[0]}, reverse=True)


def set_up(trials: Trials, dataset: DataSet, **settings: Any) -> Setup:
    """The objects of a training without dropout and augmentation."""
    config = TrainConfig(output_dir=trials.folder / "setup", dropout=0.0, **settings)
    return prepare(config, start(config), dataset)


def compare_gradients(trials: Trials, dataset: DataSet, model: str, precision: str) -> dict[str, Any]:
    """The layer with the largest error of its gradient, relative to the gradient's norm, against float64 on the CPU.

    The bound: rounding to a relative precision u = 2^-bits turns the decisions of ReLU and pooling at a share of about
    u of the units of each layer, and with them the share u of the squared norm of the gradient. Rounding itself is
    smaller. In L layers with parameters that makes √(L u); `BOUND_FACTOR` covers the differences between networks.
    """
    exact = gradients(set_up(trials, dataset, model=model, dtype="float64", cpu=True))
    found = gradients(set_up(trials, dataset, model=model, mixed_precision=precision))
    errors = {name: float((found[name] - exact[name]).norm() / exact[name].norm().clamp_min(1e-30)) for name in exact}
    layer = max(errors, key=lambda name: (errors[name] != errors[name], errors[name]))  # NaN first
    is_tf32 = precision == "no" and torch.cuda.is_available() and torch.backends.cudnn.allow_tf32
    bound = BOUND_FACTOR * (len(exact) * 2.0 ** -SIGNIFICANT_BITS["tf32" if is_tf32 else precision]) ** 0.5
    return {"model": model, "precision": precision, "layer": layer, "error": errors[layer], "bound": bound}


def gradients(setup: Setup) -> dict[str, Tensor]:
    """The gradient of each parameter for the mean loss of the first digits, float64 on the CPU."""
    images, labels = setup.train_data.batch(slice(0, BATCH))
    # Noise, because pooling picks any of several equal pixels.
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = images + noise.to(images.device, images.dtype) / 10
    setup.model.train()
    setup.hardware.accelerator.backward(cross_entropy(setup.model(images), labels))
    scaler = setup.hardware.accelerator.scaler
    scale = scaler.get_scale() if scaler else 1.0
    named = setup.module.named_parameters()
    return {name: parameter.grad.double().cpu() / scale for name, parameter in named if parameter.grad is not None}


def missed_bad_numbers(trials: Trials, dataset: DataSet, model: str, precision: str) -> list[str]:
    """The layers in which a weight that is not a number goes unnoticed."""
    setup = set_up(trials, dataset, model=model, mixed_precision=precision)
    if setup.hardware.accelerator.scaler:  # with a gradient scaler, the loss alone is looked at
        return []
    missed = []
    batch = torch.arange(BATCH, device=setup.hardware.device)
    for name, parameter in setup.module.named_parameters():
        setup.bad_numbers.found.zero_()
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter[(0,) * parameter.ndim] = torch.nan
        train_step(setup, batch, 0, 0, setup.empty_sums(1))
        if not setup.bad_numbers.found:
            missed.append(f"{model} {name} ({precision})")
        parameter.data.copy_(before)
    return missed


def dropout_figures() -> dict[str, Any]:
    """The share of zeros that dropout makes, and the mean of its outputs for ones; both within 5 standard errors."""
    wanted, units = TrainConfig().dropout, 2**20
    modules = architectures.build("cnn", dropout=wanted).modules()
    outputs = next(module for module in modules if isinstance(module, architectures.Dropout))(torch.ones(units))
    share, mean = float((outputs == 0).double().mean()), float(outputs.double().mean())
    error = (wanted * (1 - wanted) / units) ** 0.5
    passed = abs(share - wanted) <= 5 * error and abs(mean - 1) <= 5 * error / (1 - wanted)
    return {"wanted": wanted, "share": share, "mean": mean, "passed": passed}


def exact_losses(trials: Trials, model: str) -> dict[str, list[float]]:
    """The losses of all steps, and those of the epoch in training and testing, of a run in float64."""
    settings = {**EXACT_RUNS[model], "dtype": "float64", "dropout": 0.0, "epochs": 1, "batch_size": 37}
    is_cpu = accelerator_type() == "mps"  # it has no float64
    result = trials.train(f"exact-{model}", dataset=trials.dataset, model=model, cpu=is_cpu, **settings)
    return {"steps": list(result.step_losses), "epoch": [result.train_loss, result.test_loss]}


def share_of_limit(found: dict[str, list[float]], wanted: dict[str, list[float]]) -> float:
    """The largest relative difference between losses, divided by its limit."""
    shares = []
    for name, limit in (("steps", STEP_LIMIT), ("epoch", EPOCH_LIMIT)):
        if len(found[name]) != len(wanted[name]):
            return float("inf")
        pairs = zip(found[name], wanted[name], strict=True)
        shares += [abs(one / other - 1) / limit for one, other in pairs]
    return max(shares)
