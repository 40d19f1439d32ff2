"""Measure commands beside busy programs: images per second on a quiet machine, and beside an endless loop on each core.

    python -m scripts.benchmark_busy --results busy.jsonl
    python -m scripts.benchmark_busy --command predict --results busy_predict.jsonl

The ways to run the command, and the quiet and busy machine, take turns. A training counts as one of `LONGEST` seconds
if it has not ended by then. `predict` is timed from its start to its end; of `bench`, the speed that it
reports for its default counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from mnist_accel.data import datasets
from scripts.evidence import Evidence, add_options

SAMPLES, LONGEST = 1280, 60
PICTURES = 10_000  # all images of MNIST's test set
TRAIN = ["train", "--recipe", "classic", "--epochs", "1", "--train-samples", str(SAMPLES), "--quiet", "--json"]
COMMANDS = {
    "train": TRAIN,
    "predict": ["predict", "pictures", "--json"],
    "bench": ["bench", "--recipe", "speedrun", "--rounds", "3", "--json"],
}
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "default": ([], {}),
    "OMP_WAIT_POLICY=PASSIVE": ([], {"OMP_WAIT_POLICY": "PASSIVE"}),
    "GOMP_SPINCOUNT=30000": ([], {"GOMP_SPINCOUNT": "30000"}),
    "GOMP_SPINCOUNT=300000": ([], {"GOMP_SPINCOUNT": "300000"}),
    "--threads 1": (["--threads", "1"], {}),
    "--processes 2": (["--processes", "2"], {}),
}


@contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Run so many endless loops in processes of their own."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def prepare(command: str, folder: Path) -> None:
    """Write what the command needs into its folder."""
    if command == "predict":
        (folder / "pictures").mkdir()
        for index, image in enumerate(datasets.load("mnist", Path(), print).test.images):
            Image.fromarray(image).save(folder / "pictures" / f"{index:05}.png")
        words = [sys.executable, "-m", "mnist_accel", "train", "--recipe", "speedrun", "--quiet"]
        subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def speed(command: str, folder: Path, options: list[str], variables: dict[str, str]) -> float:
    """Images per second of one run of the command in its folder."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    words = [sys.executable, "-m", "mnist_accel", *COMMANDS[command], *options]
    pipe, began = subprocess.PIPE, time.monotonic()
    process = subprocess.Popen(words, env=environment | variables, cwd=folder, stdout=pipe, stderr=pipe, text=True)
    try:
        output, _ = process.communicate(timeout=LONGEST if command == "train" else None)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        return SAMPLES / LONGEST
    seconds, result = time.monotonic() - began, json.loads(output.splitlines()[-1])
    if command == "predict":
        return len(result) / seconds
    return float((result["candidates"][0] if command == "bench" else result)["images_per_second"])


def main() -> None:
    """Print a table: median speeds, their ranges, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--command", choices=COMMANDS, default="train")
    options = parser.parse_args()
    evidence = Evidence(options.results)
    ways = [way for way, (arguments, _) in WAYS.items() if options.command == "train" or not arguments]
    with tempfile.TemporaryDirectory() as name:
        prepare(options.command, Path(name))
        for number in evidence.numbers(options.rounds, options.minutes):
            for way in ways:
                for loops in (0, os.cpu_count() or 1):
                    with busy_loops(loops):
                        found = speed(options.command, Path(name), *WAYS[way])
                    evidence.add(trial=number, way=way, loops=loops, images_per_second=found)
    quiet_default = statistics.median(speeds(evidence, "default", is_busy=False))
    for way in ways:
        quiet, busy = (speeds(evidence, way, is_busy=is_busy) for is_busy in (False, True))
        shown = (f"{statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})" for found in (quiet, busy))
        print(f"| {way} | {' | '.join(shown)} | {statistics.median(busy) / quiet_default:.2f} |")


def speeds(evidence: Evidence, way: str, *, is_busy: bool) -> list[float]:
    """Images per second of the runs of one way to train."""
    found = [line for line in evidence.trials() if line["way"] == way and (line["loops"] > 0) == is_busy]
    return [line["images_per_second"] for line in found]


if __name__ == "__main__":
    main()
