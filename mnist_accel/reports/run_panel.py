"""The facts of a run in words, for the panel that is shown before training."""

from __future__ import annotations

from pathlib import Path

from mnist_accel.training.events import RunFacts


def panel_lines(facts: RunFacts) -> dict[str, str]:
    """One line of text for each fact, by its name."""
    return {
        "model": f"{facts.model}, {facts.parameters:,} parameters",
        "recipe": _recipe(facts),
        "data": _data(facts),
        "device": f"{facts.device}: {facts.device_name}",
        "processes": _processes(facts),
        "precision": _precision(facts),
        "batch": _batch(facts),
        "checkpoint": _checkpoint(facts),
        "output": str(Path(facts.output_dir).absolute()),
    }


def _data(facts: RunFacts) -> str:
    held_out = f"; {facts.validation_samples:,} more are held out for validation" if facts.validation_samples else ""
    images = f"{facts.train_samples:,} training, {facts.test_samples:,} test images"
    return f"{facts.dataset}: {images} from {facts.source}{held_out}"


def _processes(facts: RunFacts) -> str:
    exchange = f"; gradients are exchanged through {facts.exchange}" if facts.exchange else ""
    threads = _count(facts.threads, "CPU thread")
    return f"{_count(facts.world_size, 'process', 'processes')} with {threads} each{exchange}"


def _recipe(facts: RunFacts) -> str:
    settings = facts.settings
    augmented = any(settings[name] for name in ("rotation", "shift", "scale"))
    return (
        f"{facts.recipe}: {_count(facts.epochs, 'epoch')}, Adam, learning rate {settings['lr']:g}"
        + (" at the peak of one cycle" if settings["schedule"] == "one-cycle" else "")
        + (", augmented images" if augmented else "")
        + (", averaged weights" if settings["average"] else "")
        + f", seed {settings['seed']}"
    )


def _precision(facts: RunFacts) -> str:
    full = "fp32" if facts.settings["dtype"] == "float32" else "fp64"
    name = full if facts.mixed_precision == "no" else facts.mixed_precision
    return f"{name} ({facts.precision_reason})" + (", compiled" if facts.settings["compile"] else "")


def _batch(facts: RunFacts) -> str:
    parts = facts.settings["gradient_accumulation_steps"]
    share = facts.batch_size / (facts.world_size * parts)
    processes = _count(facts.world_size, "process", "processes")
    steps = _count(facts.steps_per_epoch, "step")
    return f"{facts.batch_size} samples per step = {processes} × {parts} accumulation × {share:g}; {steps} per epoch"


def _checkpoint(facts: RunFacts) -> str:
    every, keep = facts.settings["checkpoint_every"], facts.settings["keep"]
    return (
        f"every {every} steps" if every else "after each epoch"
    ) + f"; the newest {keep} are kept until the run ends"


def _count(number: int, singular: str, plural: str = "") -> str:
    """A number with its noun: "1 epoch", "2 epochs"."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
