"""Compares runs and groups of runs: is the recipe better, and is this model better."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_accel.errors import UserError
from mnist_accel.reports import pages, statistics
from mnist_accel.reports.charts import counted, line_chart
from mnist_accel.reports.runs import IRRELEVANT, Evaluation, Group, Run
from mnist_accel.reports.statistics import MARGIN, Verdict
from mnist_accel.reports.tables import as_text

Rows = Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Disagreement:
    """Two models on one test set.

    Attributes:
        first_only: indices of the test samples that the first model alone predicts correctly, int64 (N,).
        second_only: those of the second model alone.
        p: exact two-sided p-value of McNemar's test.
        evaluations: of both models.
    """

    first_only: npt.NDArray[np.int64]
    second_only: npt.NDArray[np.int64]
    p: float
    evaluations: tuple[Evaluation, Evaluation]

    def __str__(self) -> str:
        samples = len(self.evaluations[0].predictions)
        first, second = len(self.first_only), len(self.second_only)
        return (
            f"Of {samples:,} test images, {first} are right only with the first model and {second} only with the "
            f"second; exact McNemar test: p = {self.p:.2g}"
        )

    def pictures(self) -> list[pages.Pictures]:
        """The digits that only the first model reads, then those of the second, with the other's wrong answers."""
        first, second = self.evaluations
        return [pages.digits(second, self.first_only[:24]), pages.digits(first, self.second_only[:24])]


@dataclass(frozen=True)
class Comparison:
    """Runs or groups of runs, each compared with the first one.

    Attributes:
        verdicts: of each further group against the first.
        configuration: the settings that the groups do not share: a value for each group.
        models: for two single runs, where their final weights disagree; otherwise None.
    """

    groups: tuple[Group, ...]
    verdicts: tuple[Verdict, ...]
    configuration: dict[str, list[Any]]
    models: Disagreement | None

    @property
    def names(self) -> list[str]:
        """The path of each group."""
        return [str(group.path) for group in self.groups]

    def as_json(self) -> dict[str, Any]:
        """The second group against the first; "groups", "further", "configuration" and "models" hold the rest."""
        models = self.models and {
            "first_only": self.models.first_only.tolist(),
            "second_only": self.models.second_only.tolist(),
            "p": self.models.p,
        }
        return asdict(self.verdicts[0]) | {
            "groups": [{"name": name} | group.as_json() for name, group in zip(self.names, self.groups, strict=True)],
            "further": [asdict(verdict) for verdict in self.verdicts[1:]],
            "configuration": self.configuration,
            "models": models,
        }

    def sentences(self) -> list[str]:
        """The verdicts in words."""
        return [
            _sentence(verdict, self.names[0], name) for verdict, name in zip(self.verdicts, self.names[1:], strict=True)
        ]

    def summaries(self) -> Rows:
        """Name, runs, mean accuracy, standard error and interval of each group."""
        rows = []
        for name, group in zip(self.names, self.groups, strict=True):
            mean, error, interval = statistics.mean_interval(group.accuracies)
            spread = ("–", "–")
            if error is not None and interval:
                spread = f"{100 * error:.3f}", f"{interval[0]:.3%} to {interval[1]:.3%}"
            rows.append((name, str(len(group.runs)), f"{mean:.3%}", *spread))
        return rows

    def epochs(self) -> Rows:
        """Number of each epoch, and mean accuracy of each group after it."""
        rows = []
        for index in range(max(len(run.history) for group in self.groups for run in group.runs)):
            reached = [[_accuracies(run)[index : index + 1] for run in group.runs] for group in self.groups]
            means = [f"{np.mean(np.concatenate(values)):.2%}" if any(values) else "–" for values in reached]
            rows.append((str(index + 1), *means))
        return rows

    def settings(self) -> Rows:
        """Name of each setting that differs, and its value in each group."""
        return [(name, *map(as_text, values)) for name, values in self.configuration.items()]

    def html(self) -> bytes:
        """The comparison as one self-contained HTML page."""
        runs = [(name, run, colour) for colour, name in enumerate(self.names) for run in self.groups[colour].runs]
        steps = [counted(name, run.step_losses, colour) for name, run, colour in runs]
        epochs = [counted(name, _accuracies(run), colour) for name, run, colour in runs]
        charts = [
            line_chart(steps, "step", "training loss of each step", is_clipped=True),
            line_chart(epochs, "epoch", "accuracy after the epoch", percent=True),
        ]
        return pages.render("comparison.html", title="Comparison of runs", comparison=self, charts=charts)


def compare(first: str | Path, second: str | Path, *further: str | Path, margin: float = MARGIN) -> Comparison:
    """Compare the test accuracies of runs or groups of runs with those of the first one.

    Args:
        first: folder of a run or of a group.
        second: likewise; as are `further`.
        margin: largest difference that counts as none, as a share of 1.

    Raises:
        UserError: a folder holds no finished run, or the runs were tested on different data.
    """
    groups = tuple(Group.load(path) for path in (first, second, *further))
    firsts = [group.runs[0] for group in groups]
    tests = {(run.record["dataset"]["name"], run.record["dataset"].get("test_samples")) for run in firsts}
    if len(tests) > 1:
        shown = " and ".join(f"{name} ({samples} test images)" for name, samples in sorted(tests))
        raise UserError(f"the runs were tested on {shown}", "compare runs that were tested on the same data")
    names = dict.fromkeys(name for run in firsts for name in run.settings if name not in IRRELEVANT)
    values = {name: [run.settings.get(name) for run in firsts] for name in names}
    is_pair = len(groups) == 2 and len(groups[0].runs) == len(groups[1].runs) == 1
    return Comparison(
        groups,
        verdicts=tuple(_verdict(groups[0], group, margin) for group in groups[1:]),
        configuration={name: each for name, each in values.items() if any(value != each[0] for value in each)},
        models=_disagreement(*firsts) if is_pair else None,
    )


def _verdict(first: Group, second: Group, margin: float) -> Verdict:
    seeds = [[(run.seed, run.settings.get("fold")) for run in group.runs] for group in (first, second)]
    return statistics.compare_groups(first.accuracies, second.accuracies, paired=seeds[0] == seeds[1], margin=margin)


def _disagreement(first: Run, second: Run) -> Disagreement:
    evaluations = first.evaluate(), second.evaluate()
    here, there = (found.predictions.predicted == found.predictions.labels for found in evaluations)
    first_only, second_only = np.flatnonzero(here & ~there), np.flatnonzero(there & ~here)
    return Disagreement(first_only, second_only, statistics.mcnemar_p(len(first_only), len(second_only)), evaluations)


def _accuracies(run: Run) -> list[float]:
    """The test accuracy after each epoch; validation accuracy where samples were held out."""
    return [epoch.validation_accuracy if epoch.test_accuracy is None else epoch.test_accuracy for epoch in run.history]  # type: ignore[misc]


def _sentence(verdict: Verdict, first: str, second: str) -> str:
    """A verdict in words, with its figures."""
    figures = f"{100 * verdict.difference:+.3f} percentage points"
    if verdict.ci95 and verdict.p is not None:
        low, high = (f"{100 * edge:+.3f}" for edge in verdict.ci95)
        method = "paired by seed" if verdict.is_paired else "Welch"
        figures += f", 95% interval {low} to {high} ({method}), permutation test p = {verdict.p:.2g}"
        figures += f"; one run of it beats one of {first} with probability {verdict.probability_better:.0%}"
    if verdict.verdict == "no difference":
        return f"{second}: no difference from {first} larger than {100 * verdict.margin:g} points: {figures}"
    if verdict.verdict != "not enough runs":
        return f"{second} is {verdict.verdict} than {first}: {figures}"
    needed = f"about {verdict.runs_needed} of each" if verdict.runs_needed else "at least 3 of each"
    return f"{second} against {first}: not enough runs ({needed} would be): {figures}"
