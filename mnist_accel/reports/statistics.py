"""Statistics of test accuracies: intervals, comparison of two groups of runs or of two models, calibration.

docs/comparing.md explains the methods, what they assume, and their sources.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]
Interval = tuple[float, float]
MARGIN = 0.001
"""Differences of accuracy up to 0.1 percentage points count as none, unless the caller gives another margin."""
LEVEL = 0.05
"""Of all tests."""
MOST_PERMUTATIONS = 200_000
"""Enough for all permutations of 10 against 10 runs. For more runs that many random ones are drawn."""


def mean_interval(values: Values, level: float = LEVEL) -> tuple[float, float | None, Interval | None]:
    """Mean, its standard error, and its interval of Student's t with 1 - `level`; None where there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(1 - level / 2, len(values) - 1)) * error
    return mean, error, (mean - half, mean + half)


@dataclass(frozen=True)
class Verdict:
    """The second group of runs against the first. Accuracies and differences are shares of 1.

    Attributes:
        difference: mean accuracy of the second group minus that of the first.
        ci95: its interval: Welch's, or of the paired differences; None where a group has one run.
        p: exact two-sided permutation p-value, or None.
        probability_better: that a run of the second group beats one of the first; a tie counts half.
        verdict: "better", "worse", "no difference" (none larger than `margin`), or "not enough runs".
        margin: the equivalence bound.
        is_paired: whether both groups have the same seeds, and runs of the same seed were compared.
        runs: of the smaller group.
        runs_needed: of each group, to find a difference of `margin` or to exclude it, each with 90% probability; None
            where a group has one run.
    """

    difference: float
    ci95: Interval | None
    p: float | None
    probability_better: float
    verdict: str
    margin: float
    is_paired: bool
    runs: int
    runs_needed: int | None


def compare_groups(first: Values, second: Values, *, paired: bool = False, margin: float = MARGIN) -> Verdict:
    """Compare the accuracies of two groups of runs, float64 (runs,); if `paired`, in the same order of seeds."""
    runs = min(len(first), len(second))
    known: dict[str, Any] = {
        "difference": float(np.mean(second) - np.mean(first)),
        "probability_better": float(np.mean(stats.mannwhitneyu(second, first).statistic / (len(first) * len(second)))),
        "margin": margin,
        "is_paired": paired and runs > 1,
        "runs": runs,
    }
    if runs < 2:
        return Verdict(**known, ci95=None, p=None, verdict="not enough runs", runs_needed=None)
    low, high = _difference_interval(first, second, paired, LEVEL)
    # Two one-sided tests (TOST) at the level of 5% are an interval of 90% inside the margin.
    inner = _difference_interval(first, second, paired, 2 * LEVEL)
    verdict = "not enough runs"
    if -margin < inner[0] and inner[1] < margin:
        verdict = "no difference"
    elif low > 0:
        verdict = "better"
    elif high < 0:
        verdict = "worse"
    spread = second - first if paired else np.concatenate([first - np.mean(first), second - np.mean(second)])
    variance = float(np.var(spread, ddof=1)) if paired else 2 * float(np.sum(spread**2) / (len(spread) - 2))
    p = _permutation_p(first, second, paired)
    return Verdict(**known, ci95=(low, high), p=p, verdict=verdict, runs_needed=_runs_needed(variance, margin))


def _difference_interval(first: Values, second: Values, paired: bool, level: float) -> Interval:
    if paired:
        interval = mean_interval(second - first, level)[2]
        assert interval is not None
        return interval
    difference = float(np.mean(second) - np.mean(first))
    if np.ptp(first) == np.ptp(second) == 0:  # scipy has no degrees of freedom then
        return difference, difference
    found = stats.ttest_ind(second, first, equal_var=False).confidence_interval(1 - level)
    return float(found.low), float(found.high)


def _permutation_p(first: Values, second: Values, paired: bool) -> float:
    def difference(second: Values, first: Values, axis: int) -> Values:
        found = np.mean(second, axis=axis) - np.mean(first, axis=axis)
        return np.asarray(np.round(found, 12))  # accuracies are often tied; rounding errors would break the ties

    kind = "samples" if paired else "independent"
    result = stats.permutation_test(
        (second, first),
        difference,
        permutation_type=kind,
        vectorized=True,
        n_resamples=MOST_PERMUTATIONS,
        batch=10_000,
        rng=np.random.default_rng(0),
    )
    return float(result.pvalue)


def _runs_needed(variance: float, margin: float) -> int:
    """Runs of each group for 90% power of both tests; `variance` is that of a difference of two runs."""
    runs = np.unique(np.geomspace(2, 100_000, 500).astype(np.int64))
    freedom = 2 * (runs - 1)
    excluded = 2 * stats.t.ppf(1 - LEVEL, freedom)  # 90% power of TOST where there is no difference
    found = stats.t.ppf(1 - LEVEL / 2, freedom) + stats.t.ppf(0.9, freedom)
    enough = np.maximum(excluded, found) ** 2 * variance / runs <= margin**2
    return int(runs[enough.argmax()] if enough.any() else runs[-1])


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value of McNemar's test, from the samples that only one of two models predicts correctly."""
    both = first_only + second_only
    return float(stats.binomtest(first_only, both).pvalue) if both else 1.0


@dataclass(frozen=True)
class Calibration:
    """How well probabilities agree with accuracies, in bins of equal width.

    Attributes:
        error: expected calibration error: mean distance of probability and accuracy over all samples.
        ci95: its percentile bootstrap interval.
        bins: samples, mean probability and accuracy of each bin that has samples.
    """

    error: float
    ci95: Interval
    bins: list[tuple[int, float, float]]


def calibration(
    probability: Values, correct: npt.NDArray[np.bool_], bins: int = 15, resamples: int = 1000
) -> Calibration:
    """Calibration of the probabilities (N,) of the predicted classes."""
    which = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = correct.astype(np.float64) - probability
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(resamples):
        chosen = rng.integers(len(gaps), size=len(gaps))
        errors.append(float(np.abs(np.bincount(which[chosen], gaps[chosen], bins)).sum()) / len(gaps))
    low, high = np.quantile(errors, [LEVEL / 2, 1 - LEVEL / 2])
    samples = np.bincount(which, minlength=bins)
    means = [np.bincount(which, values, bins) / np.maximum(samples, 1) for values in (probability, correct)]
    rows = zip(samples.tolist(), means[0].tolist(), means[1].tolist(), strict=True)
    error = float(np.abs(np.bincount(which, gaps, bins)).sum()) / len(gaps)
    return Calibration(error, (float(low), float(high)), [row for row in rows if row[0]])
