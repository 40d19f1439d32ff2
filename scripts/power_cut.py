"""Cut the power at every write of a training run, and check what is found after the restart.

    sudo python scripts/power_cut.py --file-systems ext4 xfs btrfs

Two runs with the same output folder, one after the other, save checkpoints and publish results on a recorded disk
(scripts/recorded_disk.py). At each write the power is cut three times: none of the writes since the last flush survive,
or all of them, or random ones with the last one torn. The file system then recovers, and this must be found:

- every result file is whole: that of the first run or that of the second;
- once a run has published its results, they are there;
- before, the newest checkpoint whose `save` had returned, or a later one, and no damaged one.

Prints a line of JSON for each file system; exit code 1 if anything is missing. The disk itself is trusted: it keeps
what it has flushed, and writes sectors of 4,096 bytes as a whole.
"""

import argparse
import hashlib
import json
import random
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from scripts import recorded_disk
from scripts.evidence import Evidence
from scripts.recorded_disk import RecordedDisk

MEGABYTES = {"ext4": 40, "xfs": 300, "btrfs": 128}
"""The sizes of the disks; XFS and Btrfs need these at least."""
MEMORY = Path("/dev/shm")
"""The images are copied for each cut, which a real disk would slow down."""
HOW = ("none", "all", "some")
RUN = {"dataset": "mnist", "train_samples": 300, "batch_size": 50, "epochs": 2, "cpu": True, "threads": 1}
RUN |= {"recipe": "speedrun", "checkpoint_every": 2, "keep": 2}


@dataclass
class Run:
    """What a run had made, with the positions in the record after which it is durable.

    Attributes:
        saved: the SHA-256 of each checkpoint, with position and number.
        results: the SHA-256 of each result file.
        published: the position at which all of them were written.
    """

    saved: list[tuple[int, int, str]] = field(default_factory=list)
    results: dict[str, str] = field(default_factory=dict)
    published: int = 0


def train_twice(disk: RecordedDisk, folder: Path) -> list[Run]:
    """Train in `folder` with two seeds, and write down when something was durable."""
    from mnist_accel import TrainConfig
    from mnist_accel.files import atomic
    from mnist_accel.files.checkpoint import CheckpointFolder
    from mnist_accel.training.events import Observer
    from mnist_accel.training.train import run_training

    runs: list[Run] = []
    save, publish = CheckpointFolder.save, atomic.publish

    def noted_save(self: CheckpointFolder, *content: Any) -> Path:
        path = save(self, *content)
        runs[-1].saved.append((disk.position(), int(path.stem[-6:]), sha256(path)))
        return path

    def noted_publish(contents: dict[Path, bytes]) -> None:
        publish(contents)
        if len(contents) > 1:  # the results
            runs[-1].results = {path.name: sha256(path) for path in contents}
            runs[-1].published = disk.position()

    with mock.patch.object(CheckpointFolder, "save", noted_save), mock.patch.object(atomic, "publish", noted_publish):
        for seed in (0, 1):
            runs.append(Run())
            run_training(TrainConfig(output_dir=folder, seed=seed, **RUN), Observer())  # type: ignore[arg-type]
    return runs


def problem(runs: list[Run], position: int, folder: Path) -> str:
    """What is wrong in `folder` after a power cut at `position`; "" if nothing is."""
    from mnist_accel.files.checkpoint import CheckpointFolder

    first, second = runs
    found = {name: sha256(folder / name) for name in first.results if (folder / name).exists()}
    if any(value not in (first.results[name], second.results[name]) for name, value in found.items()):
        return "a result file is damaged"
    done = [run for run in runs if run.published <= position]
    if done and len(found) < len(first.results):
        return "a published file is missing"
    if len(done) == 2 or found == second.results:
        return "" if found == second.results else "results of the second run are missing"
    current = runs[len(done)]
    notices: list[str] = []
    newest = CheckpointFolder(folder / "checkpoints").newest_valid(notices.append)
    if notices:
        return notices[0]
    number = max((number for returned, number, _ in current.saved if returned <= position), default=0)
    if number and found != current.results:
        if newest is None:
            return f"checkpoint {number} is lost"
        if (int(newest.path.stem[-6:]), sha256(newest.path)) not in [one[1:] for one in current.saved[number - 1 :]]:
            return f"{newest.path.name} is found instead of checkpoint {number}"
    return ""


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def try_cuts(file_system: str, every: int, scratch: Path) -> dict[str, Any]:
    """Record the runs on a file system and cut the power after each `every`th write."""
    kind, _, options = file_system.partition(":")
    options, point = options or "defaults", scratch / "point"
    point.mkdir()
    disk = RecordedDisk(scratch, MEGABYTES[kind] * 2**20)
    with disk.mounted(kind, options, point):
        runs = train_twice(disk, point / "run")
    problems: Counter[str] = Counter()
    generator, tried, writes = random.Random(0), 0, 0
    for writes, cut in enumerate(disk.cuts(), start=1):
        recorded_disk.apply(cut.flushed, disk.blank)
        for how in HOW if writes % every == 0 else ():
            image = scratch / f"cut-{tried}"  # a new name: the loop device of the one before may still be in use
            recorded_disk.copy_sparse(disk.blank, image)
            recorded_disk.apply(recorded_disk.survivors(cut.pending, how, generator), image)
            tried += 1
            try:
                with recorded_disk.mounted(image, options, point):
                    found = problem(runs, cut.position, point / "run")
            except subprocess.CalledProcessError as error:
                found = f"the file system does not mount ({error})"
            image.unlink()
            if found:
                problems[f"{how}: {found}"] += 1
    saves = sum(len(run.saved) for run in runs)
    return {"file_system": file_system, "saves": saves, "writes": writes, "cuts": tried, "problems": dict(problems)}


def main() -> None:
    """Try each file system."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file-systems", nargs="+", default=["ext4"], help="for example ext4 ext4:data=writeback xfs")
    parser.add_argument("--every", type=int, default=1, help="cut the power at every so many writes")
    parser.add_argument("--results", type=Path, help="file of JSON lines to add to")
    options = parser.parse_args()
    if not recorded_disk.is_possible():
        raise SystemExit("a recorded disk needs root, /dev/fuse and loop devices: sudo python scripts/power_cut.py")
    evidence = Evidence(options.results)
    for file_system in options.file_systems:
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
            evidence.add(**try_cuts(file_system, options.every, Path(scratch)))
        print(json.dumps(evidence.lines[-1]), flush=True)
    raise SystemExit(any(line["problems"] for line in evidence.lines))


if __name__ == "__main__":
    main()
