"""Read damaged and hostile files of every kind; each must be refused with a clear error, or read correctly.

    python scripts/fuzz.py --inputs 2500

Good files are damaged: flipped bits, missing, doubled or overwritten pieces, values of wrong types, hostile pickles,
archives that unpack to gigabytes. Each input must be refused with a UserError (no other exception), or be read. Weights
must then have their original values. A hostile input creates a file if its code runs. No input may change on the disk,
and the peak memory of the process must stay below 2 GB. Prints one JSON object; exit code 1 after a failure.
"""

import argparse
import copy
import gzip
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

import mnist_accel.config
from mnist_accel.config.settings import EvaluateConfig, TrainConfig
from mnist_accel.data import datasets as data
from mnist_accel.data import digits, idx, named_sets
from mnist_accel.errors import UserError
from mnist_accel.files import checkpoint, weights
from mnist_accel.files import run_record as runlog
from mnist_accel.hardware.accelerator import start_hardware
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import architectures as models
from mnist_accel.models import classifier
from mnist_accel.training import evaluate as evaluation
from mnist_accel.training import state
from mnist_accel.training.events import Observer
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import train_epoch
from mnist_accel.training.setup import Progress, prepare

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


def saved(value: object) -> bytes:
    """The bytes of a file of torch.save."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


class Hostile:
    """Creates the file `mark` when it is unpickled."""

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
        settings = {"dataset": "mnist", "train_samples": 100, "epochs": 2, "cpu": True, "batch_size": 50}
        self.config = TrainConfig(output_dir=folder / "run", **settings)  # type: ignore[arg-type]
        hardware = start_hardware(cpu=True, mixed_precision="no", threads=None, timeout=600)
        dataset = data.load("mnist", folder, print)
        train, _ = digits.split_off(dataset.train, 100, 0, "")
        self.dataset = digits.DataSet("mnist", train, train, dataset.class_names, "", {})
        self.training = prepare(self.config, hardware, self.dataset)
        self.who = state.identity(self.config, hardware, self.dataset)
        progress = Progress()
        guard = Guard(self.config, self.who, StopRequests(), Observer())
        train_epoch(self.training, progress, Observer(), guard)
        self.checkpoint = state.capture(self.training, progress, self.who)
        self.weights = weights.serialise(self.training.module)
        self.good = weights.load(self.weights, Path("good.pth"))
        self.record = runlog.record_bytes(
            {
                "model": "cnn",
                "dataset": {"name": "mnist", "class_names": list(named_sets.DIGITS)},
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
        """Whether an input has changed on the disk."""
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
        """Read weights without a record, as `evaluate` does, and compare them with the good file."""
        loaded = classifier.load(self.write("w.pth", content), torch.device("cpu"))
        for name, tensor in loaded.model.state_dict().items():
            assert torch.equal(tensor, self.good[name]), f"{name} was read wrongly"

    def read_checkpoint(self, content: bytes) -> None:
        """Read a checkpoint as `--resume` does."""
        path = self.write("checkpoint-000001.safetensors", content)
        state.restore(self.training, checkpoint.read(path), self.who)

    def wrongly_typed_checkpoint(self) -> bytes:
        """A checkpoint with a value or tensor of a wrong type, and a SHA-256 that fits."""
        tensors, facts = self.checkpoint
        if self.random.random() < 0.5:
            facts = json.dumps(self.wrongly_typed(json.loads(facts)), default=str).encode()
        else:
            tensors = tensors | {self.random.choice(list(tensors)): torch.zeros(self.random.randrange(3), 3)}
        return checkpoint.encode(tensors, facts)

    def read_record(self, content: bytes) -> None:
        """Read the JSON beside weights as `evaluate` does."""
        path = self.write("r.pth", self.weights)
        self.write("r.json", content)
        loaded = classifier.load(path, torch.device("cpu"))
        evaluation.dataset_name(EvaluateConfig(weights=path, output_dir=self.folder), loaded.trained_on)

    def read_idx(self, content: bytes) -> None:
        """Read an IDX file. The reader of a folder turns ValueError into a message."""
        try:
            idx.parse(content, "images", 3)
        except ValueError as error:
            raise UserError(str(error)) from error

    def read_gz(self, content: bytes) -> None:
        """Read a packed data file in the data folder."""
        folder = self.write("FashionMNIST/raw/t10k-labels-idx1-ubyte.gz", content).parent
        arrays, _, problems = named_sets.read_idx_folder(folder, named_sets.IDX_SOURCES["fashion-mnist"])
        if problems and not arrays:
            raise UserError(problems[0])

    def read_recipe(self, content: bytes) -> None:
        """Read a file as `--recipe` does."""
        TrainConfig(recipe=str(self.write("r.toml", content)))

    def case(self) -> Case:
        """A random kind, and a function that reads a damaged input of it."""
        kind = self.random.choice(("weights", "checkpoint", "record", "idx", "gz", "recipe", "types", "hostile"))
        seed = models.parameter_count(self.training.module)
        match kind:
            case "weights":
                content = self.damaged(self.weights)
                return kind, lambda: self.read_weights(content)
            case "checkpoint":
                content = self.damaged(checkpoint.encode(*self.checkpoint))
                return kind, lambda: self.read_checkpoint(content)
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
                good = min(Path(str(mnist_accel.config.__file__)).parent.rglob("*.toml")).read_bytes()
                content = self.damaged(good)
                return kind, lambda: self.read_recipe(content)
            case "types":
                content = self.wrongly_typed_checkpoint()
                return kind, lambda: self.read_checkpoint(content)
            case _:
                content = self.random.choice(
                    (
                        lambda: saved({"w": Hostile(self.mark)}),
                        lambda: pickle.dumps(Hostile(self.mark), protocol=self.random.randrange(6)),
                        lambda: self.bomb(3 * 10**9) if self.random.random() < 0.1 else self.bomb(10**7),
                        lambda: saved({"w": torch.zeros(1).expand(seed, 10**9)}),
                    )
                )()
                return kind, lambda: self.read_weights(content)


def peak_memory() -> int:
    """Peak memory of this process in kB. Linux only; getrusage would include the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def main() -> None:
    """Read all inputs and print the outcomes."""
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
