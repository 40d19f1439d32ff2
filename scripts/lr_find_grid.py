"""Compare the learning rate that `train --lr-find` suggests with a grid of seven, for two recipes and three networks.

    python scripts/lr_find_grid.py

Each rate is used with three seeds, for one epoch of 30,000 samples on one thread of a CPU. The table goes to stdout.
"""

import argparse
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RATES = (1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1)
SEEDS = 3
COMMON: dict[str, Any] = {"train_samples": 30_000, "epochs": 1, "threads": 1, "cpu": True}


def cases(folder: Path) -> dict[str, dict[str, Any]]:
    """The recipes and networks by name; the network of the documentation's example is written into `folder`."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/your-own-network.md").read_text(), re.DOTALL)
    (folder / "my_net.py").write_text(example)
    networks = ROOT / "tests/models/own_networks.py"
    return {
        "`classic`": {"recipe": "classic"},
        "`speedrun`": {"recipe": "speedrun"},
        "residual network": {"model": f"{folder / 'my_net.py'}:Residual"},
        "vision transformer": {"model": f"{networks}:Patches"},
        "group normalisation": {"model": f"{networks}:Grouped"},
    }


def main() -> None:
    """Print a row for each case: mean test accuracies in percent, and how far the suggested rate is from the best."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()

    from mnist_accel import TrainConfig, UserError, find_learning_rate, train  # torch, which --help need not wait for

    def mean_accuracy(config: TrainConfig, lr: float) -> float:
        accuracies = []
        for seed in range(SEEDS):
            try:
                accuracies.append(100 * train(config.with_changes(lr=lr, seed=seed)).test_accuracy)
            except UserError:  # the loss became infinite
                accuracies.append(0.0)
        return statistics.mean(accuracies)

    with tempfile.TemporaryDirectory() as temporary:
        print("| | suggested | its accuracy |", *(f"{rate:g} |" for rate in RATES), "suggested − best |")
        print("|---|" + "---|" * (len(RATES) + 3))
        for name, settings in cases(Path(temporary)).items():
            config = TrainConfig(**COMMON, **settings, output_dir=Path(temporary) / "run")
            lr = find_learning_rate(config).lr
            suggested, *grid = (mean_accuracy(config, rate) for rate in (lr, *RATES))
            cells = (f"{accuracy:.2f}" for accuracy in grid)
            print(f"| {name} | {lr:g} | {suggested:.2f} |", " | ".join(cells), f"| {suggested - max(grid):+.2f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
