"""Makes mnist_accel/checks/reference.json: the figures of healthy runs that `certify` compares with.

    python scripts/reference_curves.py --seeds 100

Trains `small-cnn` for one epoch with the seeds 0, 1, 2, … in fp32 and in bf16, and the runs in float64. With `--check`
nothing is written: the script says how often `certify` would raise a false alarm, and how often it would find a shift,
from resampled reference runs.
"""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from mnist_accel.checks import arithmetic, convergence
from mnist_accel.checks.trial_runs import REFERENCE_RUN, Trials
from mnist_accel.files.run_record import versions
from mnist_accel.hardware.cores import cpu_name
from mnist_accel.models import architectures

PRECISIONS = ("no", "bf16")


def main(
    seeds: Annotated[int, typer.Option(help="Seeds of each precision.")] = 100,
    check: Annotated[bool, typer.Option("--check", help="Resample the reference runs instead.")] = False,
    trials: Annotated[int, typer.Option(help="Resampled groups.")] = 20_000,
    threads: Annotated[int | None, typer.Option(help="CPU threads; by default all.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Make only the runs in float64.")] = False,
) -> None:
    """Make the reference, or check it."""
    if check:
        resample(trials)
        return
    with tempfile.TemporaryDirectory() as name:
        here = Trials(Path(name), seeds=seeds, first_seed=0, burn_in_seconds=0, is_quick=True)
        if exact:
            write(arithmetic.reference() | {"exact": exact_runs(here)})
        else:
            make(here, seeds, threads)


def write(content: dict[str, Any]) -> None:
    """Write the file."""
    arithmetic.REFERENCE_FILE.write_text(json.dumps(content) + "\n", encoding="utf-8")


def exact_runs(here: Trials) -> dict[str, Any]:
    """The losses of a run in float64 of each network."""
    return {model: arithmetic.exact_losses(here, model) for model in architectures.MODELS}


def make(here: Trials, seeds: int, threads: int | None) -> None:
    """Train and write the file after each precision."""
    content: dict[str, Any] = {
        "made": {"time": datetime.now(UTC).isoformat(timespec="minutes"), "cpu": cpu_name(), "versions": versions()},
        "names": convergence.NAMES,
        "exact": exact_runs(here),
        "runs": {},
    }
    for precision in PRECISIONS:
        results = []
        for seed in range(seeds):
            settings: dict[str, Any] = REFERENCE_RUN | {"dataset": "mnist", "mixed_precision": precision}
            results.append(here.train("run", seed=seed, threads=threads, **settings))
            print(f"{precision} {seed}: {results[-1].test_accuracy:.2%}", flush=True)
        rows = [convergence.figures_of(result) for result in results]
        content["runs"][precision] = [[float(f"{value:.6g}") for value in row] for row in rows]
        write(content)


def resample(trials: int) -> None:
    """Print false alarms and power: groups drawn from one half of the reference against the other half."""
    generator = np.random.default_rng(0)
    print("| precision | runs | figures shifted by (standard deviations) | fails |\n|---|---|---|---|")
    for precision, rows in arithmetic.reference()["runs"].items():
        known = np.array(rows)
        for runs in (3, 8, 32):
            for shift in (0.0, 1.0, 2.0, 4.0):
                failed = 0
                for _ in range(trials):
                    order = generator.permutation(len(known))
                    found = known[order[:runs]] + shift * known.std(axis=0)
                    deviations, limit = convergence.compare(found, known[order[runs:]])
                    failed += bool(np.abs(deviations).max() > limit)
                print(f"| {precision} | {runs} | {shift} | {failed / trials:.2%} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
