"""How often `mnist-accel compare` calls the second group of runs better, for differences that are known.

    mnist-accel train --recipe small.toml --threads 1 --seeds 60 --output-dir seeds
    python scripts/comparison_power.py seeds

Two groups are drawn at random, without replacement, from the accuracies of real runs of one recipe; a known difference
is added to the second one. Prints the share of pairs of groups with each verdict as a Markdown table.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from mnist_accel.reports import statistics
from mnist_accel.reports.runs import Group

RUNS = (3, 5, 10, 20)
DIFFERENCES = (0.0, 0.0005, 0.001, 0.002, 0.003)


def verdicts(accuracies: statistics.Values, runs: int, difference: float, pairs: int) -> Counter[str]:
    """Verdicts on `pairs` pairs of groups of `runs` runs."""
    rng = np.random.default_rng(0)
    found: Counter[str] = Counter()
    for _ in range(pairs):
        drawn = rng.choice(accuracies, 2 * runs, replace=False)
        found[statistics.compare_groups(drawn[:runs], drawn[runs:] + difference).verdict] += 1
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("group", type=Path)
    parser.add_argument("--pairs", type=int, default=1000)
    options = parser.parse_args()
    statistics.MOST_PERMUTATIONS = 1  # saves time: no verdict depends on the p-value
    accuracies = Group.load(options.group).accuracies
    print(
        f"{len(accuracies)} runs: mean {accuracies.mean():.3%}, standard deviation {100 * accuracies.std(ddof=1):.3f}\n"
    )
    print("| runs in each group | difference | better | worse | no difference | not enough runs |")
    print("|---|---|---|---|---|---|")
    for runs in RUNS:
        for difference in DIFFERENCES:
            found = verdicts(accuracies, runs, difference, options.pairs)
            names = ("better", "worse", "no difference", "not enough runs")
            shares = " | ".join(f"{found[name] / options.pairs:.1%}" for name in names)
            print(f"| {runs} | {100 * difference:g} | {shares} |")


if __name__ == "__main__":
    main()
