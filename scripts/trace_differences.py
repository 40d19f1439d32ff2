"""Plant differences between two runs, and measure whether `mnist-accel diff` names their step and layer.

    python scripts/trace_differences.py --seeds 3

Also compares healthy runs that differ in rounding only. Prints a table of the planted differences: whether diff names
the right place against a run that is otherwise the same, one with other kernels, and one in another precision. The last
line is a JSON object: right names and false alarms of how many, and the largest share of a tolerance that healthy runs
use.
"""

import contextlib
import functools
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from torch import Tensor
from torch.nn import functional

from mnist_accel.checks.trace_diff import compare, diff_traces
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import batches
from mnist_accel.hardware.peers import leave
from mnist_accel.training import loop, loss, trace
from mnist_accel.training.events import Observer, Observers
from mnist_accel.training.setup import Setup
from mnist_accel.training.train import run_training

STEP = 8
"""The first step that a planted difference changes."""
Settings = dict[str, Any]
Apply = Callable[[Setup, contextlib.ExitStack], object]


@dataclass(frozen=True)
class Plant:
    """A planted difference.

    Attributes:
        place: the layer that diff must name.
        apply: called before step `STEP`; what it enters into the stack ends with the run.
        processes: how many it needs.
        is_early: call `apply` before the run, because it knows the step itself.
    """

    place: str
    apply: Apply
    processes: int = 1
    is_early: bool = False


def _patched(target: object, name: str, change: Callable[[Any], Any]) -> Apply:
    """Replace a function of a module by `change(function)`."""
    return lambda _, stack: stack.enter_context(mock.patch.object(target, name, change(getattr(target, name))))


def _forward(layer: str, function: Callable[[Any, Tensor], Tensor]) -> Apply:
    """Let a layer compute `function(layer, input)`."""

    def apply(setup: Setup, _: contextlib.ExitStack) -> None:
        module = setup.module.get_submodule(layer)
        module.forward = functools.partial(function, module)

    return apply


def _optimizer_state(change: Callable[[dict[str, Tensor]], object]) -> Apply:
    return lambda setup, _: [change(state) for state in setup.optimizer.state.values()]


def _zeroed_gradient(setup: Setup, _: contextlib.ExitStack) -> None:
    def zero(weight: Tensor) -> None:
        assert weight.grad is not None
        weight.grad.zero_()

    setup.module.get_parameter("features.5.weight").register_post_accumulate_grad_hook(zero)


def _flipped_bit(setup: Setup, _: contextlib.ExitStack) -> None:
    """Flip the lowest but ten of the 23 bits of the mantissa of one weight."""
    weight = setup.module.get_parameter("features.2.weight").detach().permute(0, 2, 3, 1).reshape(-1, 1)
    weight.view(torch.int32)[77] ^= 2**10


def _hidden_rate(setup: Setup, _: contextlib.ExitStack) -> None:
    def multiply(factor: float) -> None:
        for group in setup.optimizer.param_groups:
            group["lr"] *= factor

    setup.optimizer.register_step_pre_hook(lambda *_: multiply(1.5))
    setup.optimizer.register_step_post_hook(lambda *_: multiply(1 / 1.5))


def _short_mantissa(values: Tensor) -> Tensor:
    """Values with 15 of the 23 bits of a float32 mantissa, rounded to nearest."""
    dense = values.detach().to_dense() if values.is_mkldnn else values.detach()
    short = (dense.contiguous().view(torch.int32) + 2**7 & -(2**8)).view(torch.float32)
    return values + ((short - dense).to_mkldnn() if values.is_mkldnn else short - dense)


def _short_convolution(setup: Setup, _: contextlib.ExitStack) -> None:
    """A convolution whose images and results have 8 bits of mantissa less."""
    module = setup.module.get_submodule("features.2")
    module.register_forward_pre_hook(lambda _, images: tuple(map(_short_mantissa, images)))
    module.register_forward_hook(lambda _, __, features: _short_mantissa(features))


def _other_order(order: Callable[..., Any]) -> Callable[..., Any]:
    def swapped(*arguments: int) -> Any:
        samples = order(*arguments)
        first = (STEP - 1) * BASE["batch_size"]
        samples[[first, first + 1]] = samples[[first + 1, first]]
        return samples

    return swapped


BASE: Settings = {"batch_size": 128, "threads": 1, "cpu": True, "epochs": 1}
PLANTS = {
    "a layer's gradient zeroed": Plant("features.5.weight", _zeroed_gradient),
    "learning rate × 1.5": Plant(
        "learning rate", _patched(loop, "learning_rate", lambda rate: lambda *_: 1.5 * rate(*_))
    ),
    "learning rate × 1.5 inside the optimizer": Plant("features.0.weight", _hidden_rate),
    "Adam without bias correction": Plant(
        "features.0.weight", _optimizer_state(lambda state: state["step"].fill_(1e9))
    ),
    "Adam's moments lost": Plant("features.0.weight", _optimizer_state(lambda state: state["exp_avg"].zero_())),
    "GELU for ReLU": Plant("classifier.2", _forward("classifier.2", lambda _, units: functional.gelu(units))),
    "a bias missing": Plant(
        "classifier.1", _forward("classifier.1", lambda layer, units: functional.linear(units, layer.weight))
    ),
    "dropout 0.6 for 0.5": Plant(
        "classifier.3", lambda setup, _: setattr(setup.module.get_submodule("classifier.3"), "probability", 0.6)
    ),
    "a convolution with 8 bits of mantissa less": Plant("features.2", _short_convolution),
    "a bit flipped in a weight": Plant("features.2.weight", _flipped_bit),
    "normalisation off by 10%": Plant(
        "images", _patched(batches, "normalise", lambda normalise: lambda *_: 1.1 * normalise(*_))
    ),
    "labels permuted": Plant("labels", lambda setup, _: setup.train_data.labels.copy_(setup.train_data.labels.roll(1))),
    "two samples swapped in the order": Plant("samples", _patched(loop, "epoch_order", _other_order), is_early=True),
    "label smoothing": Plant(
        "loss",
        _patched(loss, "cross_entropy", lambda entropy: lambda *_, **__: entropy(*_, **__ | {"label_smoothing": 0.01})),
    ),
    "gradients summed, not averaged": Plant(
        "classifier.4.bias", _patched(loop, "mean_for_all_processes", lambda mean: lambda *_: 2 * mean(*_)), 2
    ),
    "a process does not exchange gradients": Plant(
        "classifier.4.bias",
        _patched(loop, "exchange_gradients", lambda exchange: lambda setup, **_: exchange(setup, is_last=False)),
        2,
    ),
    "both processes see the same samples": Plant(
        "samples", _patched(loop, "local_slices", lambda slices: lambda size, _, *rest: slices(size, 0, *rest)), 2
    ),
}


class _Done(Exception):  # noqa: N818
    """All steps are traced."""


class _Planter(Observer):
    """Applies a plant before step `STEP`, and ends the run after `steps` steps."""

    def __init__(self, plant: Plant | None, steps: int, stack: contextlib.ExitStack) -> None:
        self.plant, self.steps, self.stack = plant, steps, stack

    def run_prepared(self, setup: Setup) -> None:
        self.setup = setup
        if self.plant and self.plant.is_early:
            self.plant.apply(setup, self.stack)

    def step_finished(self, step: int, sums: Tensor) -> None:  # noqa: ARG002
        if self.plant and not self.plant.is_early and step + 1 == STEP - 1:
            self.plant.apply(self.setup, self.stack)
        if step + 1 == self.steps:
            raise _Done


def traced(path: Path, steps: int, plant: str | None = None, **settings: Any) -> Path:
    """Trace `steps` steps of a run in this process; the file."""
    config = TrainConfig(**BASE | {"output_dir": path.parent / "run"} | settings)
    with contextlib.ExitStack() as stack, contextlib.suppress(_Done):
        planter = _Planter(PLANTS[plant] if plant else None, steps, stack)
        run_training(config, Observers(trace.Tracer(path, steps), planter))
    return path


def traced_by_two(path: Path, runs: list[Settings]) -> None:
    """Trace several runs in two processes; `runs` are arguments of `traced`, with names in `path` as "path"."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    places = [run | {"path": str(path / run["path"])} for run in runs]
    subprocess.run([sys.executable, *launcher, __file__, "--worker", json.dumps(places)], check=True)


def planted(folder: Path, steps: int) -> dict[str, list[str]]:
    """For each plant the places that diff names against the three healthy runs."""
    two = [{"path": f"two {kind}", "steps": steps} | kinds for kind, kinds in KINDS.items()]
    two += [
        {"path": name, "plant": name, "steps": steps} | KINDS["same"]
        for name, plant in PLANTS.items()
        if plant.processes == 2
    ]
    traced_by_two(folder, two)
    found = {}
    for kind, settings in KINDS.items():
        traced(folder / f"one {kind}", steps, **settings)
    for name, plant in PLANTS.items():
        if plant.processes == 1:
            traced(folder / name, steps, name, **KINDS["same"])
        against = "one" if plant.processes == 1 else "two"
        found[name] = [place(folder / f"{against} {kind}", folder / name) for kind in KINDS]
    return found


def place(first: Path, second: Path) -> str:
    """The step and layer that diff names, or "equal"."""
    found = diff_traces(first, second).difference
    return f"step {found.step}, {found.layer}" if found else "equal"


KINDS: dict[str, Settings] = {
    "same": {"mixed_precision": "no"},
    "other kernels": {"mixed_precision": "no", "speedups": False},
    "bf16": {"mixed_precision": "bf16"},
}
"""The healthy runs that runs with plants, which are the first kind, are compared with."""
RECIPES: tuple[Settings, ...] = (
    {"recipe": "classic", "dropout": 0},
    {"recipe": "speedrun"},
    {"recipe": "accurate", "dropout": 0},
)
VARIANTS: dict[str, Settings] = KINDS | {
    "bf16, other kernels": {"mixed_precision": "bf16", "speedups": False},
    "2 threads": {"mixed_precision": "no", "threads": 2},
    "float64": {"mixed_precision": "no", "dtype": "float64"},
}


def healthy(folder: Path, steps: int, seeds: range) -> Iterator[tuple[Path, Path]]:
    """Pairs of traces that differ in rounding only, of each recipe and seed."""
    for recipe, seed in itertools.product(RECIPES, seeds):
        name = f"{recipe['recipe']} {seed}"
        settings: Settings = {"seed": seed} | recipe
        runs = {f"{name} {variant}": settings | changes for variant, changes in VARIANTS.items()}
        paths = [traced(folder / name, steps, **run) for name, run in runs.items()]
        if recipe["recipe"] == "classic":  # in the others, each process normalises its own part
            by_two = {f"{variant} by two": run for variant, run in runs.items() if "threads" not in run}
            traced_by_two(folder, [{"path": path, "steps": steps} | run for path, run in by_two.items()])
            paths += [folder / path for path in by_two]
        yield from itertools.combinations(paths, 2)


def main(
    seeds: Annotated[int, typer.Option(help="Of the healthy runs of each recipe.")] = 1,
    first_seed: int = 0,
    steps: Annotated[int, typer.Option(help="Traced steps of the healthy runs.")] = 50,
    worker: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Print the table and the figures."""
    if worker:
        for run in json.loads(worker):
            traced(Path(run.pop("path")), **run)
        leave()
        return
    right, used = dict.fromkeys(KINDS, 0), dict[str, float]()
    alarms = pairs = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"| planted before step {STEP} | {' | '.join(KINDS)} |\n|---|---|---|---|")
        for plant, places in planted(folder, STEP + 12).items():
            for kind, found in zip(KINDS, places, strict=True):
                right[kind] += found == f"step {STEP}, {PLANTS[plant].place}"
            print(f"| {plant} | {' | '.join(places)} |", flush=True)
        for first, second in healthy(folder, steps, range(first_seed, first_seed + seeds)):
            pairs += 1
            if (found := place(first, second)) != "equal":
                alarms += 1
                print(f"false alarm: {first.name} against {second.name}: {found}")
            for one in compare(trace.read(first), trace.read(second)):
                if one.tolerance:
                    used[one.quantity] = max(used.get(one.quantity, 0.0), one.size / one.tolerance)
    figures = {"planted": len(PLANTS), "right": right, "pairs": pairs, "alarms": alarms}
    print(json.dumps(figures | {"used": {quantity: round(share, 3) for quantity, share in used.items()}}))


if __name__ == "__main__":
    typer.run(main)
