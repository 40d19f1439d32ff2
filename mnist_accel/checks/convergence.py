"""Certificate, convergence: losses and accuracy of some seeds against the reference runs in reference.json."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from mnist_accel.checks.arithmetic import precisions, reference
from mnist_accel.checks.trial_runs import REFERENCE_RUN, Trials
from mnist_accel.training.train import TrainResult

SPANS = ((0, 10), (10, 30), (30, 80), (80, 160), (160, 235))  # steps whose mean training losses are compared
NAMES = (*(f"loss of steps {first + 1} to {last}" for first, last in SPANS), "test loss", "test accuracy")
FALSE_ALARMS = 0.001  # the probability that a machine that trains like the reference fails this section


def figures_of(result: TrainResult) -> list[float]:
    """The figures of a run that are compared, in the order of `NAMES`."""
    means = [float(np.mean(result.step_losses[first:last])) for first, last in SPANS]
    return [*means, result.test_loss, result.test_accuracy]


def compare(found: npt.NDArray[np.float64], known: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """How far the mean figures of runs, (k, figures), are from those of the reference runs, (n, figures).

    Returns the differences in standard errors, (figures,), and their limit: two-sided, from Student's t with n - 1
    degrees of freedom, divided among the figures (Bonferroni). The scatter is that of the reference.
    """
    error = known.std(axis=0, ddof=1) * np.sqrt(1 / len(found) + 1 / len(known))
    limit = float(stats.t.ppf(1 - FALSE_ALARMS / 2 / known.shape[1], len(known) - 1))
    return (found.mean(axis=0) - known.mean(axis=0)) / error, limit


def check(trials: Trials) -> tuple[bool, str, dict[str, Any]]:
    """Train with some seeds, and compare them with the reference runs of the same precision."""
    settings: dict[str, Any] = REFERENCE_RUN | {"dataset": "mnist", "mixed_precision": precisions()[-1]}
    seeds = range(trials.first_seed, trials.first_seed + trials.seeds)
    found = np.array([figures_of(trials.train("seed", seed=seed, **settings)) for seed in seeds])
    # fp16 has fp32's distribution of results: its scaler skips steps that overflow, and keeps the weights in fp32.
    precision = settings["mixed_precision"]
    known = np.array(reference()["runs"]["bf16" if precision == "bf16" else "no"])
    deviations, limit = compare(found, known)
    means = dict(zip(NAMES, found.mean(axis=0).tolist(), strict=True))
    worst = int(np.abs(deviations).argmax())
    summary = (
        f"{trials.seeds} seeds in {precision}: test accuracy {means['test accuracy']:.2%}; "
        f"largest deviation: {NAMES[worst]}, {abs(deviations[worst]):.1f} standard errors "
        f"{'above' if deviations[worst] > 0 else 'below'} {len(known)} reference runs (limit {limit:.1f})"
    )
    table = {name: round(float(value), 2) for name, value in zip(NAMES, deviations, strict=True)}
    figures = {"seeds": trials.seeds, "precision": precision, "deviations": table, "limit": limit, "means": means}
    return bool(np.abs(deviations).max() <= limit), summary, figures
