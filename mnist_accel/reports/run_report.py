"""The report of a run or a group of runs: one self-contained HTML file."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mnist_accel.config.settings import TrainConfig, option_name, settings
from mnist_accel.errors import ConfigError
from mnist_accel.files import atomic
from mnist_accel.reports import pages, statistics
from mnist_accel.reports.charts import Chart, Series, line_chart
from mnist_accel.reports.run_summary import group_headline
from mnist_accel.reports.runs import Evaluation, Group, Run
from mnist_accel.reports.tables import as_text

REPORT_FILE = "report.html"
OUTPUT = ("output_dir", "data_dir", "resume", "seed")
"""Settings that say where, not how."""


def report(path: str | Path) -> Path:
    """Write report.html into the folder of a run or a group, and return its path.

    The report of a group shows all its runs, and the mistakes of the first one.

    Raises:
        UserError: no finished run is there, its data set is missing, or the folder is read-only.
    """
    group = Group.load(path)
    run, evaluation = group.runs[0], group.runs[0].evaluate()
    values = _figures(group, run, evaluation) | _mistakes(evaluation) | _calibration(evaluation) | _facts(run)
    output = group.path / REPORT_FILE
    atomic.write_whole(output, pages.render("report.html", **values))
    return output


def _figures(group: Group, run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """Title, headline, table of a group, curves, and figures by epoch."""
    result, record = evaluation.result, run.record
    low, high = result.accuracy_ci95
    finished = datetime.fromtimestamp(run.weights.stat().st_mtime, UTC)
    part = "validation" if run.history[-1].validation_loss is not None else "test"
    names = (
        "train_loss",
        "train_accuracy",
        f"{part}_loss",
        f"{part}_accuracy",
        "lr",
        "images_per_second",
        "train_seconds",
    )
    forms = (".4f", ".2%", ".4f", ".2%", ".3g", ",.0f", ".1f")
    epochs = [
        (epoch.epoch, *(format(getattr(epoch, name), form) for name, form in zip(names, forms, strict=True)))
        for epoch in run.history
    ]
    rows = [run.as_json() for run in group.runs]
    mean = f", mean of {len(rows)} runs" if len(rows) > 1 else ""
    return {
        "title": f"{result.dataset}: {group.accuracies.mean():.2%} test accuracy{mean}",
        "subtitle": f"Model {record['model']}, recipe {record['recipe']}, seed {run.seed}, on {record['device_name']}; "
        f"finished {finished:%Y-%m-%d %H:%M} UTC",
        "headline": {
            "test accuracy": f"{result.accuracy:.2%}",
            "95% interval (Wilson)": f"{low:.2%} to {high:.2%}",
            "mistakes": f"{result.samples - result.correct:,} of {result.samples:,}",
            "test loss": f"{result.loss:.4f}",
            "training": f"{sum(epoch.train_seconds for epoch in run.history):.1f} s",
        },
        "group": [_group_row(row) for row in rows] if len(rows) > 1 else [],
        "group_text": group_headline(group.as_json())
        + f". Figures of one run are those of the first, with seed {run.seed}.",
        "charts": _curves(group, part),
        "part": part,
        "epochs": epochs,
    }


def _group_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    figures = f"{row['test_accuracy']:.2%}", f"{row['test_loss']:.4f}", f"{row['train_seconds']:.1f}"
    return str(row["seed"]), *figures, row["weights_sha256"][:12]


def _curves(group: Group, part: str) -> list[Chart]:
    """Loss and accuracy by epoch, and loss by step; all runs of a group."""
    charts = []
    for name in ("loss", "accuracy"):
        lines = [
            Series(
                which,
                [epoch.epoch for epoch in run.history],
                [getattr(epoch, f"{which}_{name}") for epoch in run.history],
                colour,
            )
            for run in group.runs
            for colour, which in enumerate(("train", part))
        ]
        charts.append(line_chart(lines, "epoch", name, percent=name == "accuracy"))
    steps = [Series.thinned("train", run.step_losses) for run in group.runs]
    return [*charts, line_chart(steps, "step", "loss of each step", is_clipped=True)]


def _mistakes(evaluation: Evaluation) -> dict[str, Any]:
    """Confusion matrix, most confused classes with examples, worst mistakes, figures by class."""
    found, result, names = evaluation.predictions, evaluation.result, evaluation.dataset.class_names
    matrix = np.array(result.confusion_matrix)
    errors = matrix * (1 - np.eye(len(names), dtype=np.int64))
    levels = np.ceil(3 * np.log1p(errors) / np.log1p(max(1, errors.max()))).clip(0, 3).astype(int)
    rows = []
    for true, name in enumerate(names):
        styles = [f"e{level}" if level else "" for level in levels[true].tolist()]
        styles[true] = "hit"
        rows.append((name, list(zip(matrix[true].tolist(), styles, strict=True))))
    pairs = []
    for pair in np.argsort(-errors, axis=None, kind="stable")[:5]:
        true, predicted = np.unravel_index(pair, errors.shape)
        if number := int(errors[true, predicted]):
            examples = np.flatnonzero((found.labels == true) & (found.predicted == predicted))[:6]
            text = f"{names[true]} read as {names[predicted]}: {number} of {matrix[true].sum():,}"
            pairs.append((text, pages.digits(evaluation, examples)))
    wrong = np.flatnonzero(found.predicted != found.labels)
    worst = wrong[np.argsort(-found.probability[wrong], kind="stable")][:24]
    shares = ("precision", "recall", "f1")
    return {
        "class_names": names,
        "matrix": rows,
        "pairs": pairs,
        "mistakes": pages.digits(evaluation, worst),
        "classes": [
            (row["class"], *(f"{row[share]:.2%}" for share in shares), row["samples"]) for row in result.per_class
        ],
    }


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    found = evaluation.predictions
    result = statistics.calibration(found.probability, found.predicted == found.labels)
    bins = [(f"{probability:.1%}", f"{accuracy:.1%}", f"{samples:,}") for samples, probability, accuracy in result.bins]
    lines = [
        Series("perfect", [0, 1], [0, 1], 10),
        Series("model", [point[1] for point in result.bins], [point[2] for point in result.bins]),
    ]
    return {
        "calibration_text": f"Expected calibration error {result.error:.2%} (95% interval {result.ci95[0]:.2%} to "
        f"{result.ci95[1]:.2%}, bootstrap): the mean distance between the probability of a prediction and the share of "
        "correct predictions, in 15 bins.",
        "reliability": line_chart(lines, "probability", "accuracy", percent=True),
        "bins": bins,
    }


def _facts(run: Run) -> dict[str, Any]:
    """Configuration with its changes from the recipe, environment, data, and the command that makes the run again."""
    record, data = run.record, run.record["dataset"]
    try:
        usual = TrainConfig(recipe=run.settings["recipe"]).as_json()
    except ConfigError:  # the recipe's file is gone, or of another version
        usual = {}
    changed = {name: value for name, value in run.settings.items() if name in usual and usual[name] != value}
    versions = record.get("versions", {})
    names = ("device_name", "device", "cpu", "threads", "world_size", "mixed_precision", "git_commit")
    return {
        "settings": [
            (name, as_text(value), f"recipe: {as_text(usual[name])}" if name in changed and name not in OUTPUT else "")
            for name, value in run.settings.items()
        ],
        "environment": {name.replace("_", " "): as_text(record.get(name)) for name in names} | versions,
        "data": {
            "data set": data["name"],
            "source": as_text(data.get("source")),
            "images": f"{data.get('train_samples'):,} training, {data.get('test_samples'):,} test",
            **data.get("checksums", {}),
            "weights (SHA-256)": record["weights_sha256"],
        },
        "command": command(run.settings, changed),
        "time": [],
        "time_text": "",
    }


def command(values: Mapping[str, Any], changed: Sequence[str] | Mapping[str, Any]) -> str:
    """The command line that makes a run again, from its settings and the names of those that differ from the recipe."""
    known = settings(TrainConfig)
    words = ["mnist-accel", "train", "--recipe", str(values["recipe"])]
    for name in changed:
        if (
            name in known
            and known[name].on_command_line
            and name not in ("output_dir", "resume")
            and values[name] is not None
        ):
            words += [option_name(name)] if values[name] is True else [option_name(name), str(values[name])]
    return shlex.join(words)
