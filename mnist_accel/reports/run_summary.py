"""The facts of a training run as short texts for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_accel.config.base import count
from mnist_accel.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mnist_accel.training.events import RunFacts
    from mnist_accel.training.train import TrainResult


def summary(facts: "RunFacts") -> dict[str, str]:
    """Name and value of each fact that the user sees before the first step."""
    settings = facts.settings
    checkpoint_every, accumulation = settings["checkpoint_every"], settings["gradient_accumulation_steps"]
    share = facts.batch_size / (facts.world_size * accumulation)
    plain_precision = "fp32" if settings["dtype"] == "float32" else "fp64"
    precision = plain_precision if facts.mixed_precision == "no" else facts.mixed_precision
    return {
        "model": f"{facts.model}, {facts.parameters:,} parameters",
        "recipe": f"{facts.recipe}: {_recipe(settings)}",
        "data": f"{facts.dataset}: {facts.train_samples:,} training, {facts.test_samples:,} test images "
        f"from {facts.source}"
        + (f"; the test images are part {settings['fold']} of the training set" if settings.get("fold") else "")
        + (f"; {facts.validation_samples:,} more held out for validation" if facts.validation_samples else ""),
        "device": f"{facts.device}: {facts.device_name}",
        "processes": f"{facts.world_size}, each with {count(facts.threads, 'CPU thread')}"
        + (f"; gradients are exchanged through {facts.exchange}" if facts.exchange else ""),
        "precision": f"{precision} ({facts.precision_reason})" + (", compiled" if settings["compile"] else ""),
        "batch": f"{facts.batch_size} samples per step = {count(facts.world_size, 'process', 'es')} × "
        f"{accumulation} accumulation × {share:g}; {count(facts.steps_per_epoch, 'step')} per epoch",
        "checkpoint": (f"every {count(checkpoint_every, 'step')}" if checkpoint_every else "after each epoch")
        + f"; the newest {settings['keep']} are kept",
        "output": str(Path(facts.output_dir).absolute()),
    }


def headline(result: "TrainResult") -> str:
    """The result of a run in one sentence. A resumed run has trained for longer than this call took."""
    total = "for this call, after a resume" if result.train_seconds > result.wall_seconds else "in total"
    return (
        f"{printable(result.dataset)}: test accuracy {result.test_accuracy:.2%} with the weights of epoch "
        f"{result.chosen_epoch}; {result.train_seconds:.1f} s of training, {result.wall_seconds:.1f} s {total}"
    )


def group_headline(values: "Mapping[str, Any]") -> str:
    """The result of a group of runs in one sentence, from `Group.as_json`."""
    text = f"{count(len(values['runs']), 'run')}: mean test accuracy {values['mean']:.3%}"
    if values["ci95"] is None:
        return text
    low, high = values["ci95"]
    return f"{text} ± {100 * values['standard_error']:.3f} (standard error); 95% interval {low:.3%} to {high:.3%}"


def running_average(settings: "Mapping[str, Any]") -> str:
    """How the training figures of an epoch are measured. Names dropout and augmentation only if they are on."""
    noise = ["dropout"] * bool(settings["dropout"]) + ["augmentation"] * _is_augmented(settings)
    return "running average" + (f", with {' and '.join(noise)}" if noise else "")


def _is_augmented(settings: "Mapping[str, Any]") -> bool:
    return any(settings[name] for name in ("rotation", "shift", "scale"))


def _recipe(settings: "Mapping[str, Any]") -> str:
    """The main settings of a recipe."""
    parts = [
        count(settings["epochs"], "epoch"),
        f"Adam, learning rate {settings['lr']:g}"
        + (" at the peak of one cycle" if settings["schedule"] == "one-cycle" else ""),
        f"dropout {settings['dropout']:g}" if settings["dropout"] else "",
        "augmentation" if _is_augmented(settings) else "",
        "averaged weights" if settings["average"] else "",
        f"seed {settings['seed']}",
    ]
    return ", ".join(part for part in parts if part)
