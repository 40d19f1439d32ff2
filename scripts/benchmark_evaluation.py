"""Measure how long the 10,000 test digits of MNIST take, with several numbers of samples in a forward pass.

    python scripts/benchmark_evaluation.py --recipe classic --rounds 7 --mixed-precision no

The networks have random weights. In each round every size is measured once, in turn. Prints JSON: the median of the
seconds by size, and of the ratios to the first size, with the lowest and the highest.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from mnist_accel.config.settings import TrainConfig
from mnist_accel.training import train
from mnist_accel.training.events import Observer
from mnist_accel.training.metrics import predict_dataset
from mnist_accel.training.setup import prepare


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="classic")
    parser.add_argument("--mixed-precision", default="auto")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 100, 250, 500])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            recipe=options.recipe, mixed_precision=options.mixed_precision, output_dir=Path(folder), train_samples=1000
        )
        hardware, silent = train.start(config), Observer()
        loaded = train.load_data("mnist", Path(), hardware, silent, skip_damaged=False)
        setup = prepare(config, hardware, train.split(config, loaded))

        def seconds(size: int) -> float:
            began = time.perf_counter()
            predict_dataset(setup.module, setup.test_data, hardware, size)
            return time.perf_counter() - began

        # The first round warms up.
        rounds = [[seconds(size) for size in options.sizes] for _ in range(1 + options.rounds)][1:]
    found = {}
    for size, times in zip(options.sizes, zip(*rounds, strict=True), strict=True):
        ratios = [own / first for own, (first, *_) in zip(times, rounds, strict=True)]
        found[str(size)] = {
            "seconds": round(statistics.median(times), 3),
            "ratio": [round(value, 2) for value in (statistics.median(ratios), min(ratios), max(ratios))],
        }
    facts = {"recipe": options.recipe, "mixed_precision": hardware.mixed_precision, "device": hardware.device_name}
    print(json.dumps(facts | {"threads": hardware.threads, "sizes": found}))


if __name__ == "__main__":
    main()
