"""Train a recipe with several seeds and report the final test accuracy: mean, standard error, range, time.

    python scripts/accuracy.py --recipe speedrun --seeds 3 --mixed-precision bf16

Every seed counts, with the accuracy after its last epoch.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path


def read_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--recipe", default="seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mixed-precision", default="auto")
    return parser.parse_args()


def main() -> None:
    """Run the seeds in turn; one line per seed goes to stderr, one JSON object to stdout."""
    options = read_options()

    from mnist_accel import TrainConfig, train  # imports torch, which --help need not wait for

    accuracies, seconds = [], []
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            result = train(
                TrainConfig(
                    recipe=options.recipe,
                    seed=seed,
                    dataset=options.dataset,
                    data_dir=options.data_dir,
                    mixed_precision=options.mixed_precision,
                    output_dir=Path(folder),
                )
            )
        curve = " ".join(f"{record.test_accuracy:.2%}" for record in result.history)
        print(f"seed {seed}: {curve}, {result.train_seconds:.1f} s of training", file=sys.stderr)
        accuracies.append(result.test_accuracy)
        seconds.append(result.train_seconds)
    error = statistics.stdev(accuracies) / math.sqrt(len(accuracies)) if len(accuracies) > 1 else None
    summary = {
        "recipe": options.recipe,
        "dataset": result.dataset,
        "mixed_precision": result.mixed_precision,
        "device": result.device,
        "threads": result.threads,
        "seeds": options.seeds,
        "mean_test_accuracy": round(statistics.mean(accuracies), 6),
        "standard_error": round(error, 6) if error is not None else None,
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "median_train_seconds": round(statistics.median(seconds), 2),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
