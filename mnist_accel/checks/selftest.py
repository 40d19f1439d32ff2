"""`mnist-accel selftest`: checks on this machine that training, resuming and evaluation are correct.

Each check runs the command line in processes of its own, in a temporary folder, on MNIST from the package.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from mnist_accel.errors import LaunchError, printable
from mnist_accel.files.checkpoint import FOLDER, CheckpointFolder
from mnist_accel.hardware.cores import available_cores

RUN = ("train", "--train-samples", 4000, "--epochs", 2)
TEST_SAMPLES = 10_000
EXACT_RECIPE = 'dtype = "float64"\ndropout = 0.0\nepochs = 1\nbatch_size = 37\n'
"""Without dropout and in float64, the number of processes changes only the last digits."""
LOWEST_ACCURACY = 0.9
PRECISION_TOLERANCE = 0.02
"""Largest difference in accuracy between two precisions, or two runs on a GPU; after two epochs they vary by 0.01."""
CHILD_SECONDS = 300


@dataclass(frozen=True)
class Check:
    """The result of one check; `passed` is None where this machine cannot run it."""

    name: str
    passed: bool | None
    figures: str
    seconds: float

    def as_line(self) -> Text:
        """The result for people."""
        word, style = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("skip", "yellow")}[self.passed]
        line = Text(f"{word}  ", style=style).append(f"{self.name:<34}", style="bold")
        return line.append(f"{self.seconds:>5.1f} s  {self.figures}", style="not bold")


class Selftest:
    """The checks, in a folder of their own. The others compare their runs with `whole`, the run of the first check."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.whole: dict[str, Any] = {}

    def run(self, *arguments: object) -> dict[str, Any]:
        """The JSON object that one command prints. Raises LaunchError if it ends with another exit code than 0."""
        process = self.start(*arguments)
        try:
            output, errors = process.communicate(timeout=CHILD_SECONDS)
        finally:
            process.kill()
        if process.returncode != 0:
            reason = printable((errors.splitlines() or ["no message"])[-1])
            raise LaunchError(f"{arguments[0]} ended with exit code {process.returncode}: {reason}")
        return dict(json.loads(output.splitlines()[-1]))

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """A command in a process of its own, without the variables of a launcher."""
        launcher = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        environment = {name: value for name, value in os.environ.items() if name not in launcher}
        command = [sys.executable, "-m", "mnist_accel", *map(str, arguments), "--json"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True)

    def train_and_evaluate(self) -> tuple[bool, str]:
        self.whole = self.run(*RUN, "--output-dir", "whole")
        found = self.run("evaluate", "--weights", "whole/mnist_cnn_model.pth")
        trained = self.whole["test_accuracy"]
        passed = trained >= LOWEST_ACCURACY and found["accuracy"] == trained and found["samples"] == TEST_SAMPLES
        return passed, (
            f"{trained:.1%} in training, {found['accuracy']:.1%} from the saved weights, "
            f"{self.whole['images_per_second']:,.0f} images/s, "
            f"{self.whole['mixed_precision']} on {self.whole['device']}"
        )

    def kill_and_resume(self) -> tuple[bool, str]:
        arguments = (*RUN, "--checkpoint-every", 8, "--output-dir", "killed", "--resume", "auto")
        process = self.start(*arguments)
        deadline = time.monotonic() + CHILD_SECONDS
        while not CheckpointFolder(self.folder / "killed" / FOLDER).numbered():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LaunchError("the run ended before it could be killed")
            time.sleep(0.005)
        process.kill()
        process.communicate()
        resumed = self.run(*arguments)
        same = resumed["weights_sha256"] == self.whole["weights_sha256"]
        if self.whole["device"] != "cpu" and not same:  # only CPUs compute the same bits again
            difference = abs(resumed["test_accuracy"] - self.whole["test_accuracy"])
            return difference <= PRECISION_TOLERANCE, f"accuracy differs by {difference:.1%}; not bit for bit on a GPU"
        return same, "the resumed run's weights are " + ("the same, bit for bit" if same else "DIFFERENT")

    def one_against_two_processes(self) -> tuple[bool | None, str]:
        if available_cores() < 2:
            return None, "this machine has one core"
        (self.folder / "exact.toml").write_text(EXACT_RECIPE)
        arguments = (
            "train",
            "--recipe",
            "exact.toml",
            "--dataset",
            "mnist",
            "--train-samples",
            300,
            "--cpu",
            "--threads",
            1,
        )
        one, two = (self.run(*arguments, "--processes", n, "--output-dir", f"of-{n}") for n in (1, 2))
        if two["world_size"] != 2:
            return False, f"{two['world_size']} process ran instead of 2"
        difference = max(abs(two[key] / one[key] - 1) for key in ("train_loss", "test_loss"))
        return difference <= 1e-12, f"losses in float64 differ by {difference:.1e} (limit 1e-12)"

    def evaluation_counts(self) -> tuple[bool, str]:
        arguments = ("evaluate", "--weights", "whole/mnist_cnn_model.pth", "--mixed-precision", "no", "--cpu")
        ways: list[tuple[object, ...]] = [(), ("--batch-size", 37)]
        if available_cores() >= 2:
            ways.append(("--batch-size", 1000, "--processes", 2))
        results = [self.run(*arguments, *way) for way in ways]
        counts = [f"{result['correct']} of {result['samples']}" for result in results]
        return len(set(counts)) == 1 and results[0]["samples"] == TEST_SAMPLES, " = ".join(counts)

    def fp32_against_chosen_precision(self) -> tuple[bool, str]:
        chosen = self.whole["mixed_precision"]
        if chosen == "no":
            return True, "this machine trains in fp32 by default"
        plain = self.run(*RUN, "--mixed-precision", "no", "--output-dir", "fp32")
        difference = abs(plain["test_accuracy"] - self.whole["test_accuracy"])
        ratio = self.whole["images_per_second"] / plain["images_per_second"]
        return difference <= PRECISION_TOLERANCE, (
            f"fp32 {plain['test_accuracy']:.1%}, {chosen} {self.whole['test_accuracy']:.1%}; "
            f"{chosen} is {ratio:.1f} times as fast"
        )


def run_selftest(running: Callable[[str], AbstractContextManager[object]]) -> Iterator[Check]:
    """Run all checks; a check that cannot be finished has failed.

    Args:
        running: called with a check's name; the context lasts as long as the check.
    """
    with tempfile.TemporaryDirectory(prefix="mnist-accel-selftest-") as name:
        selftest = Selftest(Path(name))
        works = (
            selftest.train_and_evaluate,
            selftest.kill_and_resume,
            selftest.one_against_two_processes,
            selftest.evaluation_counts,
            selftest.fp32_against_chosen_precision,
        )
        for number, work in enumerate(works, 1):
            title, began = work.__name__.replace("_", " "), time.monotonic()
            try:
                with running(f"{number}/{len(works)} {title}"):
                    passed, figures = work()
            except (LaunchError, subprocess.TimeoutExpired, KeyError, ValueError) as error:
                passed, figures = False, str(error)
            yield Check(title, passed, figures, round(time.monotonic() - began, 1))
            if not selftest.whole:
                break  # the others compare with the first


def verdict(checks: Sequence[Check]) -> str:
    """The closing line."""
    failed = [check.name for check in checks if check.passed is False]
    skipped = sum(check.passed is None for check in checks)
    if failed:
        return f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}."
    return f"All {len(checks) - skipped} checks passed" + (f", {skipped} skipped." if skipped else ".")
