"""Compare the learning rate that `train --lr-find` suggests with a grid of seven, for five networks.

    python scripts/lr_find_grid.py results.jsonl

Each rate is used with three seeds, for one epoch of 30,000 samples (`small-cnn`: of all), on one thread of a CPU, or on
a GPU with `--gpu`. Each finished training is added to the file, and is not repeated when the script is started again.
With `--minutes`, the script ends with code 75 before the training that would begin later. `--only NAME` does one row,
so that several processes with a file each can share the work: put their files together afterwards. The table goes to
stdout.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RATES = (1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1)
SEEDS = 3
COMMON: dict[str, Any] = {"train_samples": 30_000, "epochs": 1}
ON_CPU: dict[str, Any] = {"threads": 1, "cpu": True}


def cases(folder: Path) -> dict[str, dict[str, Any]]:
    """The recipes and networks by name; the network of the documentation's example is written into `folder`."""
    example, *_ = re.findall(r"```python\n(.*?)```", (ROOT / "docs/your-own-network.md").read_text(), re.DOTALL)
    (folder / "my_net.py").write_text(example)
    networks = ROOT / "tests/models/own_networks.py"
    from mnist_accel.checks.trial_runs import REFERENCE_RUN

    return {
        "`classic`": {"recipe": "classic"},
        "`small-cnn`": REFERENCE_RUN | {"train_samples": None},
        "residual network": {"model": f"{folder / 'my_net.py'}:Residual"},
        "vision transformer": {"model": f"{networks}:Patches"},
        "group normalisation": {"model": f"{networks}:Grouped"},
    }


def accuracies(name: str, settings: dict[str, Any], results: Path, end: float) -> dict[float, list[float]]:
    """Test accuracies in percent for each seed, by learning rate; the suggested rate is the first."""
    from mnist_accel import TrainConfig, find_learning_rate, train  # torch, which --help need not wait for
    from mnist_accel.training.optimizer import NumbersError

    known: dict[str, Any] = dict(map(json.loads, results.read_text().splitlines())) if results.exists() else {}

    def remember(key: str, value: float) -> float:
        with results.open("a") as file:
            file.write(json.dumps([key, value]) + "\n")
        return value

    def accuracy(lr: float, seed: int) -> float:
        if time.monotonic() > end:
            sys.exit(75)
        try:
            return 100 * train(config.with_changes(lr=lr, seed=seed)).test_accuracy
        except NumbersError:  # the loss became infinite
            return 0.0

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(**settings, output_dir=Path(folder))
        suggested = known.get(name) or remember(name, find_learning_rate(config).lr)
        found: dict[float, list[float]] = {}
        for lr in (suggested, *RATES):
            keys = {seed: f"{name} {lr:g} {seed}" for seed in range(SEEDS)}
            found[lr] = [
                known[key] if key in known else remember(key, accuracy(lr, seed)) for seed, key in keys.items()
            ]
    return found


def main() -> None:
    """Print a row for each case: mean test accuracies in percent, and how far the suggested rate is from the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--gpu", action="store_true", help="train on the GPU")
    parser.add_argument("--only", metavar="NAME", help="the row to do, such as 'vision transformer'")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        common = COMMON | ({} if options.gpu else ON_CPU)
        rows = {
            name: accuracies(name, common | settings, options.results, end)
            for name, settings in cases(Path(folder)).items()
            if options.only in (None, name)
        }
    print("| | suggested | its accuracy |", *(f"{rate:g} |" for rate in RATES), "suggested − best |")
    print("|---|" + "---|" * (len(RATES) + 3))
    for name, found in rows.items():
        means = {lr: statistics.mean(values) for lr, values in found.items()}
        lr = next(iter(means))
        cells = (f"{means[rate]:.2f}" for rate in RATES)
        difference = means[lr] - max(means[rate] for rate in RATES)
        print(f"| {name} | {lr:g} | {means[lr]:.2f} |", " | ".join(cells), f"| {difference:+.2f} |")


if __name__ == "__main__":
    main()
