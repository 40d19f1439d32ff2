import itertools
from math import comb

import numpy as np
import pytest

from mnist_accel.reports import statistics
from mnist_accel.reports.statistics import calibration, compare_groups, mcnemar_p, mean_interval

SPEEDRUN = (
    np.array(
        [
            9917,
            9908,
            9904,
            9889,
            9925,
            9912,
            9907,
            9912,
            9928,
            9919,
            9923,
            9901,
            9912,
            9897,
            9903,
            9910,
            9906,
            9913,
            9911,
            9898,
            9915,
            9910,
            9905,
            9902,
            9908,
            9901,
            9911,
            9916,
            9913,
            9913,
            9902,
            9906,
            9916,
            9912,
            9908,
            9906,
            9911,
            9914,
            9908,
            9903,
            9904,
            9909,
            9906,
            9905,
            9911,
            9903,
            9907,
            9905,
            9908,
            9908,
            9917,
            9911,
            9919,
            9922,
            9906,
            9895,
            9910,
            9911,
            9890,
            9901,
        ]
    )
    / 10_000
)
"""Test accuracies of `small-cnn` with the seeds 0 to 59, as docs/comparing.md describes."""
A = np.array([0.990, 0.991, 0.992, 0.9905, 0.9915])


def test_mean_standard_error_and_interval_of_student() -> None:
    mean, error, interval = mean_interval(np.array([0.5, 0.6, 0.7]))
    assert interval is not None
    assert mean == pytest.approx(0.6)
    assert error == pytest.approx(0.1 * 3**-0.5)
    assert interval[1] - mean == pytest.approx(0.4302653 * 3**-0.5)  # t of 2 degrees of freedom, from a printed table
    assert mean_interval(np.array([0.5, 0.9]))[2] == (0.0, 1.0)  # an accuracy can be neither below 0 nor above 1
    assert mean_interval(np.array([0.5])) == (0.5, None, None)


def test_a_clear_difference_is_better_in_one_direction_and_worse_in_the_other() -> None:
    up, down = compare_groups(A, A + 0.003), compare_groups(A + 0.003, A)
    assert (up.verdict, down.verdict) == ("better", "worse")
    assert up.difference == pytest.approx(0.003)
    assert up.ci95 is not None
    assert down.ci95 is not None
    assert up.ci95 == pytest.approx((-down.ci95[1], -down.ci95[0]))
    assert (up.probability_better, down.probability_better) == (1.0, 0.0)


def test_the_permutation_p_value_is_exact() -> None:
    assert compare_groups(A, A + 0.003).p == pytest.approx(2 / comb(10, 5))
    assert compare_groups(A, A + 0.003, paired=True).p == pytest.approx(2 / 2**5)
    second = A + np.array([0.001, -0.0005, 0.002, 0.001, -0.001])
    pooled = np.concatenate([A, second])
    seen = abs(second.mean() - A.mean())
    extreme = [
        abs(pooled[list(chosen)].mean() - np.delete(pooled, chosen).mean()) >= seen - 1e-12
        for chosen in itertools.combinations(range(10), 5)
    ]
    assert compare_groups(A, second).p == pytest.approx(np.mean(extreme))


def test_welch_interval_of_unequal_variances() -> None:
    # The screws of Wikipedia's "Student's t-test": t = 1.959 with 7.031 degrees of freedom, so 0.095 ± 2.3634 · 0.0485.
    first = np.array([29.89, 29.93, 29.72, 29.98, 30.02, 29.98])
    second = np.array([30.02, 29.99, 30.11, 29.97, 30.01, 29.99])
    assert compare_groups(first, second).ci95 == pytest.approx((-0.0196, 0.2096), abs=1e-4)


def test_equal_groups_have_no_difference_only_where_the_margin_is_wide_enough() -> None:
    assert compare_groups(A, A, margin=0.002).verdict == "no difference"
    short = compare_groups(A, A, margin=0.0005)
    assert short.verdict == "not enough runs"
    assert short.runs_needed is not None
    assert short.runs_needed > 50


def test_the_number_of_runs_needed_gives_the_verdict_with_the_promised_power(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "MOST_PERMUTATIONS", 1)  # no verdict depends on p
    rng = np.random.default_rng(1)
    runs = compare_groups(A, A, margin=0.001).runs_needed
    assert runs is not None
    spread = A.std(ddof=1)
    verdicts = [
        compare_groups(rng.normal(0, spread, runs), rng.normal(0.001, spread, runs), margin=1e-9).ci95
        for _ in range(100)
    ]
    found = sum(interval is not None and interval[0] > 0 for interval in verdicts)
    assert 82 <= found <= 100


@pytest.mark.parametrize(("difference", "least", "most"), [(0.0, 0, 15), (0.003, 180, 200)])
def test_two_groups_of_five_real_runs_are_rarely_called_better_unless_they_are(
    difference: float, least: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MOST_PERMUTATIONS", 1)  # no verdict depends on p
    rng = np.random.default_rng(2)
    found = []
    for _ in range(200):  # 15 of 200 is 5% and the 95% quantile of its binomial error
        drawn = rng.choice(SPEEDRUN, 10, replace=False)
        found.append(compare_groups(drawn[:5], drawn[5:] + difference).verdict)
    assert least <= found.count("better") <= most


def test_pairing_by_seed_removes_what_the_seeds_have_in_common() -> None:
    second = A + 0.0004 + np.array([0, 1, -1, 1, -1]) * 5e-5
    assert compare_groups(A, second, margin=1e-5).verdict == "not enough runs"
    assert compare_groups(A, second, margin=1e-5, paired=True).verdict == "better"


def test_one_run_is_never_enough() -> None:
    verdict = compare_groups(A[:1], A[:1] + 0.5)
    assert (verdict.verdict, verdict.ci95, verdict.p, verdict.runs_needed) == ("not enough runs", None, None, None)


def test_groups_without_any_spread_are_compared() -> None:
    same = np.full(3, 0.99)
    assert compare_groups(same, same).verdict == "no difference"
    assert compare_groups(same, same + 0.01).verdict == "better"


def test_mcnemar_counts_only_the_samples_on_which_models_disagree() -> None:
    assert mcnemar_p(8, 2) == mcnemar_p(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 2**10)
    assert mcnemar_p(0, 0) == 1.0


def test_calibration_error_is_the_mean_gap_of_probability_and_accuracy() -> None:
    probability = np.array([0.95] * 100 + [0.55] * 100)
    correct = np.array([True] * 85 + [False] * 15 + [True] * 55 + [False] * 45)
    found = calibration(probability, correct)
    assert found.error == pytest.approx(0.05)
    assert found.ci95[0] < 0.05 < found.ci95[1]
    assert [(samples, round(mean, 3), round(share, 3)) for samples, mean, share in found.bins] == [
        (100, 0.55, 0.55),
        (100, 0.95, 0.85),
    ]
