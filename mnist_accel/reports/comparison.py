"""Compares runs and groups of runs: is the recipe better, and is this model better."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mnist_accel.errors import UserError
from mnist_accel.reports import pages, statistics
from mnist_accel.reports.runs import Evaluation, Group, Run, differences
from mnist_accel.reports.statistics import MARGIN, Verdict
from mnist_accel.reports.tables import as_text


class Disagreement(NamedTuple):
    """Indices of the test images that one of two models alone predicts correctly, and the p-value of McNemar's test."""

    first_only: list[int]
    second_only: list[int]
    p: float


@dataclass(frozen=True)
class Comparison:
    """Runs or groups of runs, each compared with the first one."""

    groups: tuple[Group, ...]
    verdicts: tuple[Verdict, ...]  # of each further group against the first
    configuration: dict[str, list[Any]]  # the settings that the groups do not share: a value for each group
    models: Disagreement | None  # for two single runs, where their final weights disagree
    evaluations: Sequence[Evaluation]  # of two single runs

    @property
    def names(self) -> list[str]:
        """The path of each group."""
        return [str(group.path) for group in self.groups]

    def as_json(self) -> dict[str, Any]:
        """The second group against the first; "groups", "further", "configuration" and "models" hold the rest."""
        first, *further = map(asdict, self.verdicts)
        return first | {
            "groups": [{"name": str(group.path)} | group.as_json() for group in self.groups],
            "further": further,
            "configuration": self.configuration,
            "models": self.models and self.models._asdict(),
        }

    def sentences(self) -> list[str]:
        """The verdicts in words."""
        first, *others = self.names
        found = [_sentence(verdict, first, name) for verdict, name in zip(self.verdicts, others, strict=True)]
        if self.models:
            here, there, p = self.models
            found.append(
                f"Of {len(self.evaluations[0].predictions):,} test images, {len(here)} are right only with the first "
                f"model and {len(there)} only with the second; exact McNemar test: p = {p:.2g}"
            )
        return found

    def tables(self) -> dict[tuple[str, ...], Sequence[tuple[str, ...]]]:
        """Rows by their heads: figures of each group, mean accuracy after each epoch, settings that differ."""
        groups, epochs = [], []
        for group in self.groups:
            found = group.as_json()
            error, interval = found["standard_error"], found["ci95"]
            spread = ("–", "–") if error is None else (f"{100 * error:.3f}", "{:.3%} to {:.3%}".format(*interval))
            groups.append((str(group.path), str(len(group.runs)), f"{found['mean']:.3%}", *spread))
        for index in range(max(len(run.history) for group in self.groups for run in group.runs)):
            reached = [np.concatenate([_accuracies(run)[index:][:1] for run in group.runs]) for group in self.groups]
            epochs.append((str(index + 1), *(f"{values.mean():.2%}" if len(values) else "–" for values in reached)))
        return {
            ("folder", "runs", "mean test accuracy", "standard error", "95% interval"): groups,
            ("epoch", *self.names): epochs,
            ("setting", *self.names): [(name, *map(as_text, found)) for name, found in self.configuration.items()],
        }

    def html(self) -> bytes:
        """The comparison as one self-contained HTML page."""
        runs = [(name, run, colour) for colour, name in enumerate(self.names) for run in self.groups[colour].runs]
        steps = [pages.line(name, run.step_losses, colour) for name, run, colour in runs]
        epochs = [pages.line(name, _accuracies(run), colour) for name, run, colour in runs]
        charts: list[pages.Chart] = [{"x": "step", "y": "training loss of each step", "lines": steps}]
        charts.append({"x": "epoch", "y": "accuracy after the epoch", "lines": epochs})
        pairs = zip(reversed(self.evaluations), self.models[:2] if self.models else (), strict=True)
        digits = [pages.digits(other, indices[:24]) for other, indices in pairs]  # wrong answers of the other model
        return pages.render("comparison.html", title="Comparison of runs", it=self, charts=charts, digits=digits)


def compare(first: str | Path, second: str | Path, *further: str | Path, margin: float = MARGIN) -> Comparison:
    """Compare the test accuracies of runs or groups of runs, named by their folders, with those of the first one.

    `margin` is the largest difference that counts as none, as a share of 1. Raises UserError if a folder holds no
    finished run, or the runs were tested on different data.
    """
    groups = tuple(Group.load(path) for path in (first, second, *further))
    runs = [group.runs[0] for group in groups]
    tests = {(run.record["dataset"]["name"], run.record["dataset"].get("test_samples")) for run in runs}
    if len(tests) > 1:
        shown = " and ".join(f"{name} ({samples} test images)" for name, samples in sorted(tests))
        raise UserError(f"the runs were tested on {shown}", "compare runs that were tested on the same data")
    evaluations, models = [], None
    if [len(group.runs) for group in groups] == [1, 1]:
        evaluations = [run.evaluate() for run in runs]
        here, there = (found.predictions.predicted == found.predictions.labels for found in evaluations)
        first_only, second_only = np.flatnonzero(here & ~there).tolist(), np.flatnonzero(there & ~here).tolist()
        models = Disagreement(first_only, second_only, statistics.mcnemar_p(len(first_only), len(second_only)))
    seeds = [[(run.seed, run.settings.get("fold")) for run in group.runs] for group in groups]
    verdicts = [
        statistics.compare_groups(groups[0].accuracies, group.accuracies, paired=seeds[0] == own, margin=margin)
        for group, own in zip(groups[1:], seeds[1:], strict=True)
    ]
    return Comparison(groups, tuple(verdicts), differences([run.settings for run in runs]), models, evaluations)


def _accuracies(run: Run) -> list[float]:
    """The test accuracy after each epoch; validation accuracy where samples were held out."""
    return [epoch.test_accuracy or epoch.validation_accuracy or 0.0 for epoch in run.history]


def _sentence(verdict: Verdict, first: str, second: str) -> str:
    """A verdict in words, with its figures."""
    figures = f"{100 * verdict.difference:+.3f} percentage points"
    if verdict.ci95:
        low, high = (f"{100 * edge:+.3f}" for edge in verdict.ci95)
        method = "paired by seed" if verdict.is_paired else "Welch"
        figures += f", 95% interval {low} to {high} ({method}), permutation test p = {verdict.p:.2g}"
        figures += f"; one run of it beats one of {first} with probability {verdict.probability_better:.0%}"
    if verdict.verdict == "no difference":
        return f"{second}: no difference from {first} larger than {100 * verdict.margin:g} points: {figures}"
    if verdict.verdict != "not enough runs":
        return f"{second} is {verdict.verdict} than {first}: {figures}"
    needed = f"about {verdict.runs_needed:,} of each" if verdict.runs_needed else "at least 3 of each"
    return f"{second} against {first}: not enough runs ({needed} would be): {figures}"
