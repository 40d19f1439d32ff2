"""Measure what binding each thread to a core costs on a quiet machine: steps of `classic` with it and without, in turn.

    python -m scripts.benchmark_binding --rounds 60

Prints JSON: the mean over the rounds of the ratio of the times, and its standard error.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from mnist_accel.config.settings import TrainConfig
from mnist_accel.training import loop, train
from mnist_accel.training.events import Observer
from mnist_accel.training.setup import prepare

STEPS = 10  # of one burst, after one that is not timed


def bound_threads() -> list[int]:
    """The system's numbers of the threads that are bound to one core."""
    threads = [int(thread.name) for thread in Path("/proc/self/task").iterdir()]
    return [thread for thread in threads if len(os.sched_getaffinity(thread)) == 1]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainConfig(recipe="classic", train_samples=12_800, output_dir=Path(folder))
        hardware, silent = train.start(settings), Observer()
        dataset = train.load_data("mnist", Path(), hardware, silent, skip_damaged=False)
        setup = prepare(settings, hardware, train.split(settings, dataset))
    threads = dict(zip([0, *sorted(bound_threads())], cores, strict=True))  # 0: this one
    batches, sums = torch.arange(12_800).split(settings.batch_size), setup.empty_sums(setup.steps_per_epoch)

    def seconds(*, is_bound: bool) -> float:
        for thread, core in threads.items():
            os.sched_setaffinity(thread, {core} if is_bound else cores)
        loop.train_step(setup, batches[0], 0, 0, sums)
        began = time.perf_counter()
        for step in range(1, STEPS + 1):
            loop.train_step(setup, batches[step], 0, step, sums)
        return time.perf_counter() - began

    ratios = []
    for number in range(rounds):
        times = {is_bound: seconds(is_bound=is_bound) for is_bound in (bool(number % 2), not number % 2)}
        ratios.append(times[True] / times[False])
    error = statistics.stdev(ratios) / rounds**0.5
    print(json.dumps({"rounds": rounds, "ratio": round(statistics.mean(ratios), 4), "standard_error": round(error, 4)}))


if __name__ == "__main__":
    main()
