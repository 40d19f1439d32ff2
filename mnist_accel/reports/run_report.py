"""The report of a run or a group of runs: one self-contained HTML file."""

import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_accel.config.settings import TrainConfig, option_name, settings
from mnist_accel.errors import ConfigError
from mnist_accel.files import atomic
from mnist_accel.reports import pages, statistics
from mnist_accel.reports.console import group_headline
from mnist_accel.reports.runs import Evaluation, Group, Run

REPORT_FILE = "report.html"


def report(path: str | Path) -> Path:
    """Write report.html into the folder of a run or a group, and return its path.

    The report of a group shows all its runs, and the mistakes of the first one. Raises UserError if no finished run is
    there, its data set is missing, or the folder is read-only.
    """
    group = Group.load(path)
    run = group.runs[0]
    evaluation = run.evaluate()
    found = evaluation.predictions
    part = "validation" if run.history[-1].validation_loss is not None else "test"
    calibration = statistics.calibration(found.probability, found.predicted == found.labels)
    _, probabilities, accuracies = zip(*calibration.bins, strict=True)
    lines = pages.line("perfect", [0, 1], 10, [0, 1]), pages.line("model", accuracies, x=probabilities)
    changed = _changed(run)
    page = pages.render(
        "report.html",
        title=f"{evaluation.result.dataset}: {group.accuracies.mean():.2%} test accuracy",
        group=group,
        group_text=group_headline(group.as_json()),
        run=run,
        result=evaluation.result,
        part=part,
        charts=_curves(group, part),
        pairs=_confused_pairs(evaluation),
        mistakes=pages.digits(evaluation, found.mistakes[:24]),
        calibration=calibration,
        reliability={"x": "probability", "y": "accuracy", "lines": lines},
        changed=changed,
        command=_command(run, changed),
    )
    atomic.publish({group.path / REPORT_FILE: page})
    return group.path / REPORT_FILE


def _curves(group: Group, part: str) -> list[pages.Chart]:
    """Loss and accuracy by epoch, and loss by step; all runs of a group."""
    charts: list[pages.Chart] = []
    for name in ("loss", "accuracy"):
        lines = [
            pages.line(which, [getattr(epoch, f"{which}_{name}") for epoch in run.history], colour)
            for run in group.runs
            for colour, which in enumerate(("train", part))
        ]
        charts.append({"x": "epoch", "y": name, "lines": lines})
    steps = [pages.line("train", run.step_losses) for run in group.runs]
    return [*charts, {"x": "step", "y": "loss of each step", "lines": steps}]


def _confused_pairs(evaluation: Evaluation) -> list[tuple[str, int, pages.Pictures]]:
    """The most frequent pairs of true and predicted class, their numbers, and examples; the most frequent one first."""
    found, names = evaluation.predictions, evaluation.dataset.class_names
    pairs = [(int(found.labels[index]), int(found.predicted[index])) for index in found.mistakes]
    shown = []
    for pair, number in Counter(pairs).most_common(5):
        examples = found.mistakes[[each == pair for each in pairs]][:6]
        text = f"{names[pair[0]]} read as {names[pair[1]]}: {number} of {(found.labels == pair[0]).sum():,}"
        shown.append((text, number, pages.digits(evaluation, examples)))
    return shown


def _changed(run: Run) -> dict[str, Any]:
    """The settings that differ from those of the recipe, with the recipe's values."""
    try:
        usual = TrainConfig(recipe=run.settings["recipe"]).model_dump(mode="json")
    except ConfigError:  # the recipe's file is gone, or of another version
        return {}
    names = run.settings.keys() & usual.keys() - {"output_dir", "resume"}
    return {name: usual[name] for name in settings(TrainConfig) if name in names and usual[name] != run.settings[name]}


def _command(run: Run, changed: Mapping[str, Any]) -> str:
    """The command line that makes the run again."""
    words, in_recipe = ["mnist-accel", "train", "--recipe", str(run.settings["recipe"])], []
    for name, known in settings(TrainConfig).items():
        value = run.settings.get(name)
        if name == "fold" and value:
            words += ["--folds", value.split("/")[1]]
        elif name in changed and known.on_command_line:
            words += [option_name(name)] if value is True else [option_name(name), str(value)]
        elif name in changed:
            in_recipe.append(f"{name} = {value}")
    return shlex.join(words) + (f"  # with a recipe that says {', '.join(in_recipe)}" if in_recipe else "")
