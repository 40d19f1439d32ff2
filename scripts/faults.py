"""Faults for scripts/planted_faults.py, and the healthy conditions under which it looks for false alarms.

The package has no switch for faults: a hook of Python's import changes its modules.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

TRIAL = "PLANTED_TRIAL"
"""The environment variable with the number of a trial."""
Change = tuple[str, str, Callable[[Any], Any]]
"""The module below mnist_accel, its attribute ("Class.method" is allowed), and a function from the attribute to the one
in its place."""


def number() -> int:
    """The number of this trial. Faults that have a choice choose by it."""
    return int(os.environ.get(TRIAL, "0"))


def permuted_labels(part: str, share: float) -> Callable[[Any], Any]:
    """Exchange labels within a share of one part of each data set."""

    def make(load: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            import dataclasses

            import numpy as np

            data = load(*arguments, **options)
            digits = getattr(data, part)
            labels = digits.labels.copy()
            count = max(2, int(share * len(labels)))
            chosen = np.random.default_rng(number()).choice(len(labels), count, replace=False)
            labels[chosen] = labels[np.roll(chosen, 1)]
            return dataclasses.replace(data, **{part: dataclasses.replace(digits, labels=labels)})

        return wrapped

    return make


def without_bias_correction(build: Any) -> Any:
    """Adam whose step counter starts high, so that it corrects nothing."""

    def wrapped(*arguments: Any) -> Any:
        import torch

        optimizer = build(*arguments)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.tensor(1e6), **moments}
        return optimizer

    return wrapped


def zeroed_gradient(prepare: Any) -> Any:
    """The gradient of one parameter is 0."""

    def wrapped(*arguments: Any) -> Any:
        setup = prepare(*arguments)
        parameters = list(setup.module.parameters())
        parameters[number() % len(parameters)].register_hook(lambda gradient: gradient * 0)
        return setup

    return wrapped


def rounded_convolution(prepare: Any) -> Any:
    """The result of one convolution has 16 significant bits in float32, and 45 in float64: 8 less than usual."""

    def wrapped(*arguments: Any) -> Any:
        import torch

        def rounded(_: Any, __: Any, result: Any) -> Any:
            exact = result.detach().to_dense().double()
            mantissa, exponent = torch.frexp(exact)
            bits = {torch.float32: 16, torch.float64: 45}.get(result.dtype, 8)
            change = (torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent) - exact).to(result.dtype)
            return result + (change.to_mkldnn() if result.is_mkldnn else change)

        setup = prepare(*arguments)
        convolutions = [module for module in setup.module.modules() if isinstance(module, torch.nn.Conv2d)]
        convolutions[number() % len(convolutions)].register_forward_hook(rounded)
        return setup

    return wrapped


def flipped_bit(train_step: Any) -> Any:
    """A bit of the mantissa of one weight of the first layer flips every 500 steps of a process."""
    steps = 0

    def wrapped(setup: Any, *arguments: Any) -> None:
        nonlocal steps
        import torch

        train_step(setup, *arguments)
        steps += 1
        weight = next(setup.module.parameters()).data.view(-1)
        if steps % 500 == 0 and weight.dtype == torch.float32:
            weight.view(torch.int32)[(steps + number()) % len(weight)] ^= 1 << number() % 23

    return wrapped


def blind_to_nan(_: Any) -> Any:
    """ReLU gives 0 for NaN, as oneDNN's own does, and the chains in oneDNN's layout do not look at their weights."""
    import torch

    usual = torch.nn.ReLU.forward

    def forward(self: Any, values: Any) -> Any:
        return usual(self, values) if values.is_mkldnn else torch.where(values > 0, values, 0.0)

    torch.nn.ReLU.forward = forward  # type: ignore[assignment,method-assign]
    return lambda parameters: next(iter(parameters)).new_zeros(())


def lost_statistics(serialise: Any) -> Any:
    """Weights files have the initial statistics of batch normalisation."""

    def wrapped(model: Any) -> Any:
        import copy

        import torch

        model = copy.deepcopy(model)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
        return serialise(model)

    return wrapped


def lost_moments(restore: Any) -> Any:
    """A resumed run begins with an optimizer that has seen no gradient."""

    def wrapped(setup: Any, *arguments: Any) -> Any:
        found = restore(setup, *arguments)
        setup.optimizer.state.clear()
        return found

    return wrapped


def last_sample_missed(predict: Any) -> Any:
    """Evaluations do not count their last sample."""

    def wrapped(*arguments: Any) -> Any:
        import dataclasses

        found = predict(*arguments)
        return type(found)(**{field.name: getattr(found, field.name)[:-1] for field in dataclasses.fields(found)})

    return wrapped


def not_exchanged(average: Any) -> Any:
    """The last rank takes part in the exchange, but keeps its own gradients."""

    @functools.wraps(average)
    def wrapped(self: Any, bucket: Any) -> Any:
        own = bucket.buffer().clone()
        future = average(self, bucket)
        is_last = self.rank == self.world_size - 1
        return future.then(lambda _: bucket.buffer().copy_(own)) if is_last else future

    return wrapped


def always(precision: str) -> Callable[[Any], Any]:
    """Where the user asks for no precision, this machine chooses `precision`."""
    return lambda choose: lambda wanted, *rest: choose(precision if wanted == "auto" else wanted, *rest)


FAULTS: dict[str, Change] = {
    "labels of 1% of the samples permuted": ("data.datasets", "load", permuted_labels("train", 0.01)),
    "normalisation off by 10%": ("models.architectures", "STD", lambda std: std * 1.1),
    "last batch dropped": (
        "training.setup",
        "Setup.steps_per_epoch",
        lambda _: property(lambda setup: max(1, len(setup.train_data) // setup.config.batch_size)),
    ),
    "samples not shuffled": (
        "data.batches",
        "epoch_order",
        lambda _: lambda samples, *_: __import__("numpy").arange(samples),
    ),
    "gradient summed instead of averaged": (
        "training.loop",
        "mean_for_all_processes",
        lambda _: lambda loss, *_: loss,
    ),
    "two ranks see the same samples": (
        "data.batches",
        "local_slices",
        lambda old: lambda batch, _, *rest: old(batch, 0, *rest),
    ),
    "one rank does not exchange its gradients": ("speed.shared_memory", "SharedMemory.average", not_exchanged),
    "dropout 0.6 for 0.5": (
        "models.architectures",
        "Dropout.__init__",
        lambda old: lambda self, share: old(self, 0.6 if share == 0.5 else share),
    ),
    "learning rate × 1.5": (
        "training.optimizer",
        "set_learning_rate",
        lambda old: lambda optimizer, lr: old(optimizer, 1.5 * lr),
    ),
    "Adam without bias correction": ("training.optimizer", "build_optimizer", without_bias_correction),
    "a layer's gradient zeroed": ("training.setup", "prepare", zeroed_gradient),
    "a convolution with 8 bits of mantissa less": ("training.setup", "prepare", rounded_convolution),
    "a bit flipped in a weight every 500 steps": ("training.loop", "train_step", flipped_bit),
    "ReLU makes 0 of NaN": ("speed.onednn", "get_total_norm", blind_to_nan),
    "batch normalisation's statistics not saved": ("files.weights", "serialise", lost_statistics),
    "resume without the optimizer's moments": ("training.state", "restore", lost_moments),
    "evaluation misses the last sample": ("training.metrics", "predict_dataset", last_sample_missed),
    "test labels shuffled": ("data.datasets", "load", permuted_labels("test", 1.0)),
}
FP32, BF16 = (("hardware.accelerator", "choose_precision", always(precision)) for precision in ("no", "bf16"))
ONE_CORE: Change = ("hardware.cores", "available_cores", lambda _: lambda: 1)
HEALTHY: dict[str, tuple[Change, ...]] = {
    "healthy, fp32": (FP32,),
    "healthy, bf16": (BF16,),
    "healthy, fp32, 1 process": (FP32, ONE_CORE),
    "healthy, bf16, 1 process": (BF16, ONE_CORE),
}


class Planter(importlib.abc.MetaPathFinder):
    """Changes a module right after it has been imported."""

    def __init__(self, change: Change) -> None:
        name, self.attribute, self.make = change
        self.module = f"mnist_accel.{name}"

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == self.module else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                self.change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec

    def change(self, module: ModuleType) -> None:
        owner: Any = module
        *owners, last = self.attribute.split(".")
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, last, self.make(getattr(owner, last)))


def plant(name: str) -> None:
    """Plant a fault, or set up a healthy condition, in this process, before the package is imported."""
    changes = HEALTHY[name] if name in HEALTHY else (FAULTS[name],)
    sys.meta_path[:0] = [Planter(change) for change in changes]
