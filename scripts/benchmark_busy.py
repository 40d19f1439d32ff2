"""Measure training beside busy programs: images per second on a quiet machine, and beside an endless loop on each core.

    python -m scripts.benchmark_busy --results busy.jsonl

The ways to train, and the quiet and busy machine, take turns. A busy run counts as one of `LONGEST` seconds if it has
not ended by then.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.evidence import Evidence, add_options

SAMPLES, LONGEST = 1280, 60
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


def speed(options: list[str], variables: dict[str, str]) -> float:
    """Images per second of one short training."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    words = ["train", "--recipe", "classic", "--epochs", "1", "--train-samples", str(SAMPLES), "--quiet", "--json"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mnist_accel", *words, "--output-dir", folder, *options]
        process = subprocess.Popen(command, env=environment | variables, stdout=subprocess.PIPE, text=True)
        try:
            output, _ = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate()
            return SAMPLES / LONGEST
    return float(json.loads(output.splitlines()[-1])["images_per_second"])


def main() -> None:
    """Print a table: median speeds, their ranges, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    evidence = Evidence(options.results)
    for number in evidence.numbers(options.rounds, options.minutes):
        for way, (arguments, variables) in WAYS.items():
            for loops in (0, os.cpu_count() or 1):
                with busy_loops(loops):
                    found = speed(arguments, variables)
                evidence.add(trial=number, way=way, loops=loops, images_per_second=found)
    quiet_default = statistics.median(speeds(evidence, "default", is_busy=False))
    for way in WAYS:
        quiet, busy = (speeds(evidence, way, is_busy=is_busy) for is_busy in (False, True))
        shown = (f"{statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})" for found in (quiet, busy))
        print(f"| {way} | {' | '.join(shown)} | {statistics.median(busy) / quiet_default:.2f} |")


def speeds(evidence: Evidence, way: str, *, is_busy: bool) -> list[float]:
    """Images per second of the runs of one way to train."""
    found = [line for line in evidence.trials() if line["way"] == way and (line["loops"] > 0) == is_busy]
    return [line["images_per_second"] for line in found]


if __name__ == "__main__":
    main()
