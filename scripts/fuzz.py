"""Damaged and hostile files of every kind that the program reads: each must be refused clearly, or read correctly.

    python scripts/fuzz.py --inputs 2500

Good files are made, then damaged: bits flipped, cut short, pieces doubled or overwritten, values of wrong types,
hostile pickles, archives that unpack to gigabytes. Every input must end in an error for the user (no other exception),
or be read; weights, which can prove it, must then be read as they were written. A hostile input leaves a mark if any
code of it runs. Every input must still be what it was, and the peak memory of the process under 2 GB. Prints one JSON
object; exit code 1 when anything went wrong.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import hashlib
import io
import json
import os
import pickle
import random
import struct
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mnist_accel.config.settings import EvaluateConfig, TrainConfig
from mnist_accel.data import datasets as data
from mnist_accel.data import idx
from mnist_accel.errors import UserError
from mnist_accel.files import checkpoint, weights
from mnist_accel.files import pth as archive
from mnist_accel.files import run_record as runlog
from mnist_accel.hardware.accelerator import start_hardware
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import architectures as models
from mnist_accel.models import classifier
from mnist_accel.training import evaluate as evaluation
from mnist_accel.training import loop as engine
from mnist_accel.training import state as snapshot
from mnist_accel.training.events import Silence
from mnist_accel.training.guard import Guard

MEMORY_LIMIT = 2 * 2**20
"""kB."""
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    2**70,
    float("nan"),
    "",
    "x" * 10_000,
    [],
    {},
    [1],
    {"a": 1},
    torch.zeros(1),
    torch.zeros(0, 3),
)
Case = tuple[str, Callable[[], object]]


class Hostile:
    """Leaves a mark when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.mark}",))


class Fuzzer:
    """Makes damaged inputs in a folder and reads them."""

    def __init__(self, folder: Path, generator: random.Random) -> None:
        self.folder = folder
        self.random = generator
        self.mark = folder / "code-ran"
        self.inputs: dict[Path, bytes] = {}
        settings = {"dataset": "mnist-5k", "train_samples": 100, "epochs": 2, "cpu": True, "batch_size": 50}
        self.config = TrainConfig(output_dir=folder / "run", **settings)  # type: ignore[arg-type]
        machine = start_hardware(
            cpu=self.config.cpu, mixed_precision=self.config.mixed_precision, threads=self.config.threads, timeout=300
        )
        dataset = data.load("mnist-5k", folder, print, lambda *_: None)
        train, _ = data.split_off(dataset.train, 100, 0, "")
        self.dataset = data.DataSet("mnist-5k", train, train, dataset.class_names, "", {})
        self.training = engine.prepare(self.config, machine, self.dataset)
        self.who = snapshot.identity(self.config, machine, self.dataset)
        progress = engine.Progress()
        guard = Guard(self.config, self.who, StopRequests(), Silence())
        engine.train_epoch(self.training, progress, Silence(), guard)
        self.state = snapshot.capture(self.training, progress, self.who) | {"format_version": 1}
        self.weights = weights.serialise(self.training.module)
        self.good = weights.load(self.weights, Path("good.pth"))
        self.record = runlog.record_bytes(
            {
                "model": "cnn",
                "dataset": {"name": "mnist-5k", "class_names": list(data.DIGITS)},
                "weights_sha256": weights.sha256(self.weights),
            }
        )
        self.idx = struct.pack(">4B3I", 0, 0, 8, 3, 20, 28, 28) + bytes(20 * 784)
        labels = struct.pack(">4BI", 0, 0, 8, 1, 10000) + bytes(range(10)) * 1000
        self.gz = gzip.compress(labels)

    def damaged(self, content: bytes) -> bytes:
        """`content` with some damage."""
        changed = bytearray(content)
        where = (
            self.random.randrange(len(changed))
            if self.random.random() < 0.5
            else self.random.randrange(1000) % len(changed)
        )
        length = self.random.choice((1, 4, 64, 5000))
        match self.random.randrange(5):
            case 0:
                changed[where] ^= 1 << self.random.randrange(8)
            case 1:
                del changed[where:]
            case 2:
                changed[where:where] = changed[where : where + length]
            case 3:
                changed[where : where + length] = self.random.randbytes(length)
            case _:
                del changed[where : where + length]
        return bytes(changed)

    def write(self, name: str, content: bytes) -> Path:
        """An input file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.inputs[path] = content
        return path

    def lost(self) -> bool:
        """Whether an input is no longer what it was."""
        return any(not path.exists() or path.read_bytes() != content for path, content in self.inputs.items())

    def wrongly_typed(self, value: Any) -> Any:
        """`value` with one part, at any depth, replaced by something of another type."""
        if isinstance(value, dict) and value and self.random.random() < 0.8:
            key = self.random.choice(list(value))
            return value | {key: self.wrongly_typed(value[key])}
        if isinstance(value, list) and value and self.random.random() < 0.8:
            place = self.random.randrange(len(value))
            return [*value[:place], self.wrongly_typed(value[place]), *value[place + 1 :]]
        return copy.deepcopy(self.random.choice(WRONG))

    def bomb(self, size: int) -> bytes:
        """An archive like torch.save's whose entries unpack to `size` bytes."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
            bomb.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
            with bomb.open("archive/data/0", "w", force_zip64=True) as entry:
                for _ in range(size // 10**7):
                    entry.write(bytes(10**7))
        return buffer.getvalue()

    def read_weights(self, content: bytes) -> None:
        """As `evaluate` reads weights without a record: refused, or the very tensors of the good file."""
        loaded = classifier.load(self.write("w.pth", content), torch.device("cpu"))
        for name, tensor in loaded.model.state_dict().items():
            assert torch.equal(tensor, self.good[name]), f"{name} was read wrongly"

    def read_checkpoint(self, state: bytes, manifest: bytes | None) -> None:
        """As `--resume` reads a checkpoint; without a manifest, one that fits is forged."""
        if manifest is None:
            facts = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
            manifest = json.dumps({"format_version": 1, "files": {"state.pt": facts}}).encode()
        self.write("checkpoint-000001/state.pt", state)
        self.write("checkpoint-000001/manifest.json", manifest)
        snapshot.restore(self.training, checkpoint.read(self.folder / "checkpoint-000001"), self.who)

    def read_record(self, content: bytes) -> None:
        """As `evaluate` reads the JSON beside weights."""
        path = self.write("r.pth", self.weights)
        self.write("r.json", content)
        loaded = classifier.load(path, torch.device("cpu"))
        evaluation.dataset_name(EvaluateConfig(weights=path, output_dir=self.folder), loaded.trained_on)

    def read_idx(self, content: bytes) -> None:
        """As a data file is read; ValueError is what the reader of a folder turns into a message."""
        try:
            idx.parse(content, "images", 3)
        except ValueError as error:
            raise UserError(str(error)) from error

    def read_gz(self, content: bytes) -> None:
        """As a packed data file that the user put there is read."""
        folder = self.write("FashionMNIST/raw/t10k-labels-idx1-ubyte.gz", content).parent
        arrays, _, problems = data.read_idx_folder(folder, data.IDX_SOURCES["fashion-mnist"])
        if problems and not arrays:
            raise UserError(problems[0])

    def read_recipe(self, content: bytes) -> None:
        """As `--recipe` reads a file."""
        TrainConfig(recipe=str(self.write("r.toml", content)))

    def case(self) -> Case:
        """One damaged input of a random kind, and its reading."""
        kind = self.random.choice(("weights", "checkpoint", "record", "idx", "gz", "recipe", "types", "hostile"))
        seed = models.parameter_count(self.training.module)
        match kind:
            case "weights":
                content = self.damaged(self.weights)
                return kind, lambda: self.read_weights(content)
            case "checkpoint":
                state, manifest = archive.write(self.state), None
                damaged_state = self.damaged(state)
                if self.random.random() < 0.3:
                    facts = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
                    manifest = self.damaged(json.dumps({"format_version": 1, "files": {"state.pt": facts}}).encode())
                return kind, lambda: self.read_checkpoint(damaged_state if manifest is None else state, manifest)
            case "record":
                content = self.damaged(self.record)
                if self.random.random() < 0.5:
                    content = json.dumps(self.wrongly_typed(json.loads(self.record)), default=str).encode()
                return kind, lambda: self.read_record(content)
            case "idx":
                content = self.damaged(self.idx)
                return kind, lambda: self.read_idx(content)
            case "gz":
                bomb = self.random.random() < 0.02
                content = gzip.compress(bytes(10**9), 1) if bomb else self.damaged(self.gz)
                return kind, lambda: self.read_gz(content)
            case "recipe":
                good = (Path(models.__file__).parent / "recipes" / "seed.toml").read_bytes()
                content = self.damaged(good)
                return kind, lambda: self.read_recipe(content)
            case "types":
                wrong = self.wrongly_typed(self.state)
                return kind, lambda: self.read_checkpoint(archive.write(wrong), None)
            case _:
                content = self.random.choice(
                    (
                        lambda: archive.write({"w": Hostile(self.mark)}),
                        lambda: pickle.dumps(Hostile(self.mark), protocol=self.random.randrange(6)),
                        lambda: archive.write(self.state | {"epoch": Hostile(self.mark)}),
                        lambda: self.bomb(3 * 10**9) if self.random.random() < 0.1 else self.bomb(10**7),
                        lambda: archive.write({"w": torch.zeros(1).expand(seed, 10**9)}),
                    )
                )()
                reader = self.read_weights if self.random.random() < 0.5 else lambda c: self.read_checkpoint(c, None)
                return kind, lambda: reader(content)


def peak_memory() -> int:
    """Of this program in kB. Linux: getrusage would count what started it as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    """Read them all; print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        fuzzer = Fuzzer(Path(name), random.Random(options.seed))
        for number in range(options.inputs):
            kind, read = fuzzer.case()
            try:
                read()
                outcome = "read"
            except UserError as error:
                outcome = "refused" if str(error).strip() else "refused without a word"
            except Exception:
                outcome = "TRACEBACK"
                print(f"input {number} ({kind}):", file=sys.stderr)
                traceback.print_exc()
            if fuzzer.mark.exists():
                outcome = "CODE RAN"
                fuzzer.mark.unlink()
            if fuzzer.lost():
                outcome = "INPUT CHANGED"
            failures += outcome not in ("read", "refused")
            outcomes[f"{kind}: {outcome}"] += 1
    peak = peak_memory()
    failures += peak > MEMORY_LIMIT
    print(
        json.dumps(
            {
                "inputs": options.inputs,
                "failures": failures,
                "peak_memory_mb": round(peak / 1024),
                "outcomes": dict(sorted(outcomes.items())),
            }
        )
    )
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()
