"""The report of a run or a group of runs: one self-contained HTML file."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_accel.config.settings import TrainConfig, option_name, settings
from mnist_accel.errors import ConfigError
from mnist_accel.files import atomic
from mnist_accel.reports import pages, statistics
from mnist_accel.reports.charts import Line, counted, line_chart
from mnist_accel.reports.run_summary import group_headline
from mnist_accel.reports.runs import Evaluation, Group, Run
from mnist_accel.reports.tables import as_text

REPORT_FILE = "report.html"
PLACES = ("output_dir", "data_dir", "resume")
"""Settings that say where a run is, not how it is made."""


def report(path: str | Path) -> Path:
    """Write report.html into the folder of a run or a group, and return its path.

    The report of a group shows all its runs, and the mistakes of the first one.

    Raises:
        UserError: no finished run is there, its data set is missing, or the folder is read-only.
    """
    group = Group.load(path)
    run = group.runs[0]
    evaluation = run.evaluate()
    part = "validation" if run.history[-1].validation_loss is not None else "test"
    page = pages.render(
        "report.html",
        title=f"{evaluation.result.dataset}: {group.accuracies.mean():.2%} test accuracy",
        group=group,
        group_text=group_headline(group.as_json()),
        run=run,
        result=evaluation.result,
        part=part,
        charts=_curves(group, part),
        matrix=_matrix(evaluation),
        pairs=_confused_pairs(evaluation),
        mistakes=_worst_mistakes(evaluation),
        **_calibration(evaluation),
        time=_time(run.record.get("time_spent")),
        settings=_settings(run),
        command=_command(run),
    )
    output = group.path / REPORT_FILE
    atomic.write_whole(output, page)
    return output


def _curves(group: Group, part: str) -> list[dict[str, Any]]:
    """Loss and accuracy by epoch, and loss by step; all runs of a group."""
    charts = []
    for name in ("loss", "accuracy"):
        lines = [
            counted(which, [getattr(epoch, f"{which}_{name}") for epoch in run.history], colour)
            for run in group.runs
            for colour, which in enumerate(("train", part))
        ]
        charts.append(line_chart(lines, "epoch", name, percent=name == "accuracy"))
    steps = [counted("train", run.step_losses) for run in group.runs]
    return [*charts, line_chart(steps, "step", "loss of each step", is_clipped=True)]


def _matrix(evaluation: Evaluation) -> list[list[tuple[int, str]]]:
    """Number and CSS class of each cell of the confusion matrix. Mistakes have the classes e1 to e3, by logarithm."""
    matrix = np.array(evaluation.result.confusion_matrix)
    errors = matrix * (1 - np.eye(len(matrix), dtype=np.int64))
    levels = np.ceil(3 * np.log1p(errors) / np.log1p(max(1, errors.max()))).clip(0, 3).astype(int)
    styles = np.array(["", "e1", "e2", "e3", "hit"])[levels]
    np.fill_diagonal(styles, "hit")
    return [list(zip(*row, strict=True)) for row in zip(matrix.tolist(), styles.tolist(), strict=True)]


def _confused_pairs(evaluation: Evaluation) -> list[tuple[str, pages.Pictures]]:
    """The most frequent pairs of true and predicted class, with examples."""
    found, names = evaluation.predictions, evaluation.dataset.class_names
    wrong = found.predicted != found.labels
    pairs, counts = np.unique(np.stack([found.labels, found.predicted])[:, wrong], axis=1, return_counts=True)
    shown = []
    for index in np.argsort(-counts, kind="stable")[:5]:
        true, predicted = pairs[:, index]
        examples = np.flatnonzero((found.labels == true) & (found.predicted == predicted))[:6]
        text = f"{names[true]} read as {names[predicted]}: {counts[index]} of {(found.labels == true).sum():,}"
        shown.append((text, pages.digits(evaluation, examples)))
    return shown


def _worst_mistakes(evaluation: Evaluation) -> pages.Pictures:
    found = evaluation.predictions
    wrong = np.flatnonzero(found.predicted != found.labels)
    return pages.digits(evaluation, wrong[np.argsort(-found.probability[wrong], kind="stable")][:24])


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    found = evaluation.predictions
    result = statistics.calibration(found.probability, found.predicted == found.labels)
    _, probabilities, accuracies = zip(*result.bins, strict=True)
    lines = [Line("perfect", [0, 1], [0, 1], 10), Line("model", probabilities, accuracies)]
    return {"calibration": result, "reliability": line_chart(lines, "probability", "accuracy", percent=True)}


def _time(spent: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The time of a run with the place of each part in a bar of length 100."""
    if spent is None:
        return None
    shares = 100 * np.array(list(spent["seconds"].values())) / spent["wall_seconds"]
    return {**spent, "bars": list(zip(np.cumsum(shares) - shares, shares, strict=True))}


def _changed(run: Run) -> dict[str, Any]:
    """The settings that differ from those of the recipe, with the recipe's values."""
    try:
        usual = TrainConfig(recipe=run.settings["recipe"]).as_json()
    except ConfigError:  # the recipe's file is gone, or of another version
        return {}
    return {name: usual[name] for name, value in run.settings.items() if name in usual and usual[name] != value}


def _settings(run: Run) -> Iterable[tuple[str, str, str]]:
    """Name, value, and the recipe's value where it differs."""
    changed = _changed(run)
    for name, value in run.settings.items():
        note = f"recipe: {as_text(changed[name])}" if name in changed and name not in PLACES else ""
        yield name, as_text(value), note


def _command(run: Run) -> str:
    """The command line that makes the run again."""
    words = ["mnist-accel", "train", "--recipe", str(run.settings["recipe"])]
    options = {name for name, known in settings(TrainConfig).items() if known.on_command_line} - {
        "output_dir",
        "resume",
    }
    for name in _changed(run).keys() & options:
        value = run.settings[name]
        words += [option_name(name)] if value is True else [option_name(name), str(value)]
    return shlex.join(words)
