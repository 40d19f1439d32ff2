"""Draw the test error of recipes over the training time, from results of scripts/records.py.

    python -m scripts.accuracy_over_time docs/accuracy_over_time.png speedrun.jsonl quick.jsonl accurate.jsonl

Each file holds the trials of one recipe on the same machine. A line joins the mean test errors after each epoch, at the
mean training time until then.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

from scripts.evidence import Evidence


def main(
    output: Annotated[Path, typer.Argument(help="The picture to write.")],
    results: Annotated[list[Path], typer.Argument(help="Files that scripts/records.py has written.")],
) -> None:
    """Draw one line for each file."""
    figure = Figure(figsize=(7.5, 4.6), layout="constrained", dpi=160)
    axes = figure.subplots()
    for path in results:
        trials = [trial for trial in Evidence(path).trials() if "epochs" in trial]
        epochs = np.array([trial["epochs"] for trial in trials])  # (runs, epochs, 2): seconds and accuracy
        seconds, errors = epochs[..., 0].cumsum(axis=1).mean(axis=0), 100 * (1 - epochs[..., 1].mean(axis=0))
        axes.loglog(seconds, errors, "o-", markersize=4, label=f"{trials[0]['recipe']} ({len(trials)})")
    first = trials[0]
    precision = "fp32" if first["mixed_precision"] == "no" else first["mixed_precision"]
    machine = f"{first['device_name']}, {first['threads']} threads, {precision}"
    axes.set(xlabel=f"training time, s ({machine})", ylabel="test error, %")
    axes.set_yticks([0.3, 0.5, 1, 2, 5, 10], ["0.3", "0.5", "1", "2", "5", "10"], minor=False)
    low, high = axes.get_xlim()
    ticks = [digit * 10.0**power for power in range(-2, 5) for digit in (1, 2, 5)]
    shown = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.xaxis.set_minor_formatter("")
    axes.grid(which="both", alpha=0.2)
    axes.legend(title="recipe (runs)")
    figure.savefig(output)


if __name__ == "__main__":
    typer.run(main)
