"""Measure what watching a run costs: steps with the record of the time, with the progress display too, and without.

    python scripts/benchmark_observers.py --rounds 30

In each round the same network trains 100 steps of 128 images in each way, in turn. Prints JSON: the median of the
rounds' ratios to the steps without, and their lowest and highest.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from mnist_accel.config.settings import TrainConfig
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.reports.console import TrainingConsole
from mnist_accel.reports.timing import Timing
from mnist_accel.training import loop, train
from mnist_accel.training.events import Observer, Observers
from mnist_accel.training.guard import Guard
from mnist_accel.training.setup import Progress, prepare


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as screen:
        settings = TrainConfig(recipe="speedrun", batch_size=128, train_samples=12_800, output_dir=Path(folder))
        hardware, silent = train.start(settings), Observer()
        loaded = train.load_data("mnist", Path(), hardware, silent, skip_damaged=False)
        dataset = train.split(settings, loaded)
        setup = prepare(settings, hardware, dataset)
        guard = Guard(settings, {}, StopRequests(), silent)
        record, console = Timing(is_written=True), TrainingConsole(Console(file=screen, force_terminal=True))
        ways = {"without": silent, "record": record, "record and display": Observers(record, console)}
        ways["record and display"].run_prepared(setup)
        ways["record and display"].run_started(train.run_facts(setup, dataset))

        def seconds(observer: Observer) -> float:
            observer.epoch_started(0, 0)
            began = time.perf_counter()
            loop.train_epoch(setup, Progress(), observer, guard)
            return time.perf_counter() - began

        seconds(silent)  # warms up
        found: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            names = list(ways)[:: 1 if number % 2 else -1]
            times = {name: seconds(ways[name]) for name in names}
            for name, time_taken in times.items():
                found[name].append(time_taken / times["without"])
        console.close()
    for name in list(ways)[1:]:
        ratios = found[name]
        figures = {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
        print(json.dumps({"way": name, "rounds": rounds} | {key: round(value, 4) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
