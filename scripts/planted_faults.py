"""Plants faults into training and counts how often `certify` finds them.

    python scripts/planted_faults.py --trials 20

Each trial is a process with one fault, which runs the sections of `certify --quick` with seeds of its own until a
section fails. With the fault "none", a failure is a false alarm, and all sections run. The package has no switch for
faults: a hook of Python's import changes its modules.
"""

import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

SCRIPTS = Path(__file__).resolve().parent
Change = Callable[[ModuleType], None]


def replace(name: str, make: Callable[[Any], Any]) -> Change:
    """A change that replaces the attribute `name` of a module by `make(attribute)`; "Class.method" is allowed."""

    def change(module: ModuleType) -> None:
        owner: Any = module
        *owners, last = name.split(".")
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, last, make(getattr(owner, last)))

    return change


def permuted_labels(part: str, share: float) -> Callable[[Any], Any]:
    """Exchange labels within a share of one part of each data set."""

    def make(load: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            import dataclasses

            import numpy as np

            data = load(*arguments)
            digits = getattr(data, part)
            labels = digits.labels.copy()
            chosen = np.random.default_rng(0).choice(len(labels), max(2, int(share * len(labels))), replace=False)
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
    """The gradient of the second convolution or of its normalisation is 0."""

    def wrapped(*arguments: Any) -> Any:
        setup = prepare(*arguments)
        list(setup.module.parameters())[2].register_hook(lambda gradient: gradient * 0)
        return setup

    return wrapped


def rounded_features(forward: Any) -> Any:  # noqa: ARG001
    """The result of the convolutions is rounded to 8 bits less than its type has."""

    def wrapped(self: Any, images: Any) -> Any:
        import torch

        features = self.features(images)
        bits = {torch.float32: 16, torch.float64: 45}.get(features.dtype, 1)
        mantissa, exponent = torch.frexp(features.detach().double())
        rounded = torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent).to(features.dtype)
        return self.classifier(features + (rounded - features).detach())

    return wrapped


def flipped_bit(train_step: Any) -> Any:
    """A bit of the first layer's weights flips every 500 steps of a process."""
    steps = 0

    def wrapped(setup: Any, *arguments: Any) -> None:
        nonlocal steps
        import torch

        train_step(setup, *arguments)
        steps += 1
        weight = next(setup.module.parameters()).data.view(-1)
        if steps % 500 == 0 and weight.dtype == torch.float32:
            weight.view(torch.int32)[steps % len(weight)] ^= 1 << 18

    return wrapped


def blind_to_nan(module: ModuleType) -> None:
    """ReLU gives 0 for NaN, and the chains in oneDNN's layout do not look at their weights."""
    import torch

    torch.nn.ReLU.forward = lambda _, values: torch.where(values > 0, values, 0.0)  # type: ignore[assignment,method-assign]
    module.get_total_norm = lambda parameters: next(iter(parameters)).new_zeros(())  # type: ignore[attr-defined]


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


def only_first_rank(mean: Any) -> Any:
    """Other ranks contribute nothing to the gradient."""
    return lambda loss, *sizes: mean(loss, *sizes) * (os.environ.get("RANK", "0") == "0")


DATASETS, LOOP = "mnist_accel.data.datasets", "mnist_accel.training.loop"
ORDER, OPTIMIZER, NUMBERS = (
    "mnist_accel.data.sample_order",
    "mnist_accel.training.optimizer",
    "mnist_accel.training.bad_numbers",
)
FAULTS: dict[str, tuple[str, Change]] = {
    "labels of 1% of the samples exchanged": (DATASETS, replace("load", permuted_labels("train", 0.01))),
    "normalisation off by 10%": ("mnist_accel.models.normalisation", replace("STD", lambda std: std * 1.1)),
    "last batch dropped": (ORDER, replace("steps_per_epoch", lambda _: lambda samples, size: max(1, samples // size))),
    "samples not shuffled": (
        ORDER,
        replace("epoch_order", lambda _: lambda samples, *_: __import__("numpy").arange(samples)),
    ),
    "gradient summed instead of averaged": (
        NUMBERS,
        replace("mean_for_all_processes", lambda _: lambda loss, *_: loss),
    ),
    "two ranks see the same samples": (
        ORDER,
        replace("local_slices", lambda old: lambda batch, _, *rest: old(batch, 0, *rest)),
    ),
    "one rank's gradients are lost": (NUMBERS, replace("mean_for_all_processes", only_first_rank)),
    "dropout 0.6 for 0.5": (
        "mnist_accel.models.architectures",
        replace("Dropout.__init__", lambda old: lambda self, share: old(self, 0.6 if share == 0.5 else share)),
    ),
    "learning rate × 1.5": (
        OPTIMIZER,
        replace("set_learning_rate", lambda old: lambda optimizer, lr: old(optimizer, 1.5 * lr)),
    ),
    "Adam without bias correction": (OPTIMIZER, replace("build_optimizer", without_bias_correction)),
    "a layer's gradient zeroed": ("mnist_accel.training.setup", replace("prepare", zeroed_gradient)),
    "convolutions with 8 bits less": ("mnist_accel.models.architectures", replace("Network.forward", rounded_features)),
    "a bit flipped every 500 steps": (LOOP, replace("train_step", flipped_bit)),
    "ReLU makes 0 of NaN": ("mnist_accel.speed.onednn", blind_to_nan),
    "batch normalisation's statistics not saved": ("mnist_accel.files.weights", replace("serialise", lost_statistics)),
    "resume without Adam's moments": ("mnist_accel.training.state", replace("restore", lost_moments)),
    "evaluation misses the last sample": (
        "mnist_accel.training.metrics",
        replace("predict_dataset", last_sample_missed),
    ),
    "test labels shuffled": (DATASETS, replace("load", permuted_labels("test", 1.0))),
    "none": (LOOP, lambda _: None),
}


class Planter(importlib.abc.MetaPathFinder):
    """Changes one module right after it has been imported."""

    def __init__(self, name: str, change: Change) -> None:
        self.name, self.change = name, change

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == self.name else None
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                self.change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def plant(fault: str) -> None:
    """Plant a fault in this process, before the package is imported."""
    sys.meta_path.insert(0, Planter(*FAULTS[fault]))


def work(fault: str, seed: int) -> None:
    """In a process with the fault: run the sections until one fails, and print the name of that one."""
    from contextlib import nullcontext

    from mnist_accel.checks.certify import certify
    from mnist_accel.checks.trial_runs import Trials
    from mnist_accel.commands.certify import QUICK_SEEDS

    with tempfile.TemporaryDirectory() as name:
        trials = Trials(Path(name), seeds=QUICK_SEEDS, first_seed=seed, burn_in_seconds=0, is_quick=True)
        for section in certify(trials, lambda _: nullcontext()):
            if section.passed is False:
                print(json.dumps({"fault": fault, "seed": seed, "section": section.name, "summary": section.summary}))
                return
    print(json.dumps({"fault": fault, "seed": seed, "section": None}))


def trial(fault: str, seed: int) -> dict[str, Any]:
    """Run `work` in a process of its own, whose children get the fault, too."""
    with tempfile.TemporaryDirectory() as folder:
        code = (
            f"import sys\nsys.path.append({str(SCRIPTS)!r})\nimport planted_faults\nplanted_faults.plant({fault!r})\n"
        )
        (Path(folder) / "sitecustomize.py").write_text(code)
        paths = [folder, str(SCRIPTS.parent), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        command = [sys.executable, "-c", f"import planted_faults; planted_faults.work({fault!r}, {seed})"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{fault}: {done.stderr[-1000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(trials: int = 20, first_seed: int = 1000, faults: list[str] | None = None, output: Path | None = None) -> None:
    """Print a table; with `--output`, append each trial to a file as a line of JSON."""
    wanted = [fault for fault in FAULTS if not faults or any(part in fault for part in faults)]
    print("| fault | found | by section |\n|---|---|---|")
    for fault in wanted:
        found: Counter[str] = Counter()
        for number in range(trials):
            result = trial(fault, first_seed + 100 * number)
            if output:
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
            found[result["section"] or ""] += 1
        missed = found.pop("", 0)
        sections = ", ".join(f"{name} {count}" for name, count in found.most_common())
        print(f"| {fault} | {trials - missed} of {trials} | {sections} |", flush=True)


if __name__ == "__main__":
    import typer

    typer.run(main)
