"""Keeps the trials of a long measurement in a file of JSON lines, so that it can be made in parts."""

import argparse
import gzip
import itertools
import json
import math
import os
import platform
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Evidence:
    """The trials made so far. With a `path`, they are read from there, and each new one is appended at once.

    Every line names the commit of the package and the load of the machine (the average of the last minute).
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        if path and path.exists():
            self.lines = [json.loads(line) for line in path.read_text().splitlines()]
        folder = Path(__file__).parent
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
        )
        self._commit = described.stdout.strip() or "unknown"

    def add(self, **line: Any) -> None:
        """Append one line."""
        line |= {"commit": self._commit, "load": round(os.getloadavg()[0], 1), "python": platform.python_version()}
        self.lines.append(line)
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def trials(self) -> list[dict[str, Any]]:
        """The lines that are trials."""
        return [line for line in self.lines if "trial" in line]

    def numbers(self, count: int, minutes: float) -> Iterator[int]:
        """The numbers of the next `count` trials; none starts after so many minutes."""
        end = time.monotonic() + 60 * minutes
        first = max((line["trial"] for line in self.trials()), default=-1) + 1
        return itertools.takewhile(lambda _: time.monotonic() < end, range(first, first + count))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all long measurements have."""
    parser.add_argument("--results", type=Path, help="file of JSON lines, to which this part is added")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start no trial later than this")
    parser.add_argument("--seed", type=int, default=0)


def small_mnist(folder: Path, train: int = 800, test: int = 200) -> str:
    """Write the first digits of MNIST into `folder`; the name of that data set."""
    import mnist_accel

    packed = Path(str(mnist_accel.__file__)).parent / "data" / "mnist_files"
    folder.mkdir(exist_ok=True)
    for part, samples in (("train", train), ("t10k", test)):
        for kind, header, size in (("images-idx3", 16, 784), ("labels-idx1", 8, 1)):
            content = gzip.decompress((packed / f"{part}-{kind}-ubyte.gz").read_bytes())
            head = content[:4] + struct.pack(">I", samples) + content[8:header]
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + content[header:][: samples * size])
    return f"idx:{folder}"
