"""Statistics of test accuracies, and calibration. docs/comparing.md explains the methods and names their sources."""

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]
Interval = tuple[float, float]
MARGIN = 0.001  # differences of accuracy up to this count as none, unless the caller gives another margin
LEVEL = 0.05  # of all tests
MOST_PERMUTATIONS = 200_000  # all permutations of 10 against 10 runs are fewer; for more runs, so many random ones
BINS, RESAMPLES = 15, 1000  # of the calibration


@dataclass(frozen=True)
class Verdict:
    """The second group of runs against the first, in shares of 1. What needs two runs of each is None without them."""

    difference: float
    ci95: Interval | None  # Welch's interval, or that of the differences by seed
    p: float | None  # exact two-sided permutation p-value
    probability_better: float  # that a run of the second group beats one of the first; a tie counts half
    verdict: str  # "better", "worse", "no difference" (none larger than `margin`), or "not enough runs"
    margin: float
    is_paired: bool
    runs_needed: int | None  # of each group, to find or to exclude a difference of `margin` with 90% probability


def mean_interval(values: Values) -> tuple[float, float | None, Interval | None]:
    """Mean of accuracies, its standard error, and its 95% interval of Student's t; None where there is one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None, None
    error = float(stats.sem(values))
    half = float(stats.t.ppf(1 - LEVEL / 2, len(values) - 1)) * error
    return mean, error, (max(0.0, mean - half), min(1.0, mean + half))


def compare_groups(first: Values, second: Values, *, paired: bool = False, margin: float = MARGIN) -> Verdict:
    """Compare the accuracies of two groups of runs, float64 (runs,); if `paired`, in the same order of seeds."""
    runs, difference = min(len(first), len(second)), float(np.mean(second) - np.mean(first))
    verdict, interval, p, needed = "not enough runs", None, None, None
    if runs > 1:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # runs may have equal accuracies
            test = stats.ttest_rel(second, first) if paired else stats.ttest_ind(second, first, equal_var=False)
        low, high = map(float, test.confidence_interval(1 - LEVEL))
        interval = low, high
        # Two one-sided tests (TOST) at the level of 5% are an interval of 90% inside the margin.
        inner = test.confidence_interval(1 - 2 * LEVEL)
        if -margin < inner.low and inner.high < margin:
            verdict = "no difference"
        elif low > 0 or high < 0:
            verdict = "better" if low > 0 else "worse"
        p = _permutation_p(first, second, "samples" if paired else "independent")
        parts = [second - first] if paired else [first, second]
        needed = _runs_needed(sum(float(np.var(part, ddof=1)) for part in parts), margin)
    better = float(0.5 + np.sign(np.subtract.outer(second, first)).mean() / 2)
    return Verdict(difference, interval, p, better, verdict, margin, paired and runs > 1, needed)


def _permutation_p(first: Values, second: Values, kind: str) -> float:
    def difference(second: Values, first: Values, axis: int) -> Values:
        found = np.mean(second, axis=axis) - np.mean(first, axis=axis)
        return np.asarray(np.round(found, 12))  # accuracies are often tied; rounding errors would break the ties

    size = {"n_resamples": MOST_PERMUTATIONS, "batch": 10_000, "rng": np.random.default_rng(0)}
    return float(stats.permutation_test((second, first), difference, permutation_type=kind, **size).pvalue)


def _runs_needed(variance: float, margin: float) -> int:
    """Runs of each group for 90% power of both tests; `variance` is that of a difference of two runs."""
    runs = np.unique(np.geomspace(2, 10**9, 2000).astype(np.int64))
    freedom = 2 * (runs - 1)
    excluded = 2 * stats.t.ppf(1 - LEVEL, freedom)  # 90% power of TOST where there is no difference
    found = stats.t.ppf(1 - LEVEL / 2, freedom) + stats.t.ppf(0.9, freedom)
    enough = np.maximum(excluded, found) ** 2 * variance / runs <= margin**2
    return int(runs[enough.argmax()] if enough.any() else runs[-1])


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Exact two-sided p-value of McNemar's test, from the samples that only one of two models predicts correctly."""
    both = first_only + second_only
    return float(stats.binomtest(first_only, both).pvalue) if both else 1.0


class Calibration(NamedTuple):
    """The expected calibration error: the mean distance of probability and accuracy in bins of equal width."""

    error: float
    ci95: Interval  # percentile bootstrap
    bins: list[tuple[int, float, float]]  # samples, mean probability and accuracy of each filled bin


def calibration(probability: Values, correct: npt.NDArray[np.bool_]) -> Calibration:
    """Calibration of the probabilities (N,) of the predicted classes."""
    which, samples = np.clip(np.ceil(probability * BINS).astype(np.int64) - 1, 0, BINS - 1), len(probability)
    gaps = correct - probability

    def error(chosen: npt.NDArray[np.int64]) -> float:
        return float(np.abs(np.bincount(which[chosen], gaps[chosen], BINS)).sum()) / samples

    rng = np.random.default_rng(0)
    errors = [error(rng.integers(samples, size=samples)) for _ in range(RESAMPLES)]
    low, high = np.quantile(errors, [LEVEL / 2, 1 - LEVEL / 2])
    inside = [which == number for number in np.unique(which)]
    bins = [(int(here.sum()), float(probability[here].mean()), float(correct[here].mean())) for here in inside]
    return Calibration(error(np.arange(samples)), (float(low), float(high)), bins)
