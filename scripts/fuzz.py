"""Read damaged and hostile files of every kind; each must be refused with a clear error, or read.

    python scripts/fuzz.py --inputs 10000 --results fuzz.jsonl

The files come from grammars of their formats (scripts/fuzz_formats.py) and from damage to good files. Each must be
refused with a UserError (no other exception), or be read; weights must then have their original values. A hostile file
creates a file if its code runs. No input may change on the disk, none may take longer than 10 s of the processor, and
none may need more than 500 MB of memory, so that a command, which has about 450 MB before, stays below 1 GB.

The inputs are made in blocks of 100. With `--results`, each block becomes a line of JSON there, and a later call
continues. The last line of stdout is a JSON object about all blocks; exit code 1 after a failure.
"""

import argparse
import ctypes
import faulthandler
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mnist_accel.checks import certify
from mnist_accel.config import recipe
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data import array_files, datasets, digits, named_sets
from mnist_accel.errors import UserError
from mnist_accel.files import checkpoint, exported, weights
from mnist_accel.hardware.accelerator import start_hardware
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import classifier
from mnist_accel.pictures import predict
from mnist_accel.reports.runs import Run
from mnist_accel.training import state, trace
from mnist_accel.training.events import EpochRecord, Observer
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import train_epoch
from mnist_accel.training.setup import Progress, Setup, prepare
from scripts import fuzz_formats as formats
from scripts.evidence import Evidence, add_options

BLOCK, MEMORY_LIMIT_MB, SECONDS_LIMIT = 100, 500, 10.0
RECIPE_KEYS = ("model", "epochs", "batch_size", "lr", "dropout", "schedule", "warmup", "seed", "dtype", "rotation")


@dataclass(frozen=True)
class Good:
    """Good files, and what reading them needs."""

    training: Setup
    who: state.Facts
    tensors: dict[str, torch.Tensor]
    facts: bytes
    weights: bytes
    classifier: classifier.Classifier

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.training.module.state_dict().items()}

    @property
    def record(self) -> dict[str, Any]:
        """The JSON beside the weights."""
        dataset = {"name": "mnist", "class_names": list("0123456789")}
        metrics = {"test_accuracy": 0.9, "test_loss": 0.3, "epoch": 1}
        known = {"format_version": 1, "model": "small-cnn", "dataset": dataset, "metrics": metrics}
        return known | {"weights_sha256": weights.sha256(self.weights), "config": {"seed": 0}}


def make_good(folder: Path) -> Good:
    """Train one epoch of the smallest network."""
    values = {
        "dataset": "mnist",
        "train_samples": 100,
        "epochs": 2,
        "cpu": True,
        "batch_size": 50,
        "model": "small-cnn",
    }
    config = TrainConfig(output_dir=folder / "run", **values)  # type: ignore[arg-type]
    hardware = start_hardware(cpu=True, mixed_precision="no", threads=1, timeout=600)
    train, _ = digits.split_off(datasets.load("mnist", folder, print).train, 100, 0)
    dataset = digits.DataSet("mnist", train, train, tuple("0123456789"), "", {})
    setup, who, progress = prepare(config, hardware, dataset), state.identity(config, hardware, dataset), Progress()
    train_epoch(setup, progress, Observer(), Guard(config, who, StopRequests(), Observer()))
    tensors, facts = state.capture(setup, progress, who)
    content = weights.serialise(setup.module)
    (folder / "good.pth").write_bytes(content)
    return Good(setup, who, tensors, facts, content, classifier.load(folder / "good.pth", torch.device("cpu")))


class Fuzzer:
    """Makes files and reads them. Each method below that begins with `try_` makes and reads one file of a format."""

    def __init__(self, folder: Path, good: Good, generator: random.Random) -> None:
        self.folder, self.good, self.random = folder, good, generator
        self.grammar = formats.Opcodes(generator)
        self.mark = folder / "code-ran"
        self.written: dict[Path, bytes] = {}
        self.began, self.memory_before_mb = time.process_time(), peak_memory_mb()

    def formats(self) -> dict[str, Callable[[], None]]:
        """The methods by format."""
        return {name[4:]: getattr(self, name) for name in sorted(dir(self)) if name.startswith("try_")}

    def write(self, name: str, content: bytes) -> Path:
        """An input file; one in three is damaged once more."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.random.random() < 0.3:
            content = self.grammar.damaged(content)
        path.write_bytes(content)
        self.written[path] = content
        faulthandler.dump_traceback_later(60 * SECONDS_LIMIT, exit=True)  # a hang in C code cannot be interrupted
        self.began = time.process_time()
        ctypes.CDLL(None).malloc_trim(0)  # memory of earlier inputs, which mnist_accel.speed keeps, does not count
        Path("/proc/self/clear_refs").write_text("5")  # the peak of the memory starts anew
        self.memory_before_mb = peak_memory_mb()
        return path

    def has_lost(self) -> bool:
        """Whether an input has changed on the disk."""
        return any(not path.exists() or path.read_bytes() != content for path, content in self.written.items())

    def try_weights(self) -> None:
        """Weights without a record, as `evaluate` reads them."""
        content = formats.weights(self.grammar, self.good.shapes, self.mark)
        classifier.load(self.write("w.pth", content), torch.device("cpu"))

    def try_weights_bytes(self) -> None:
        """Damaged weights must have the original values if they are read."""
        loaded = classifier.load(self.write("v.pth", self.grammar.damaged(self.good.weights)), torch.device("cpu"))
        for name, tensor in loaded.model.state_dict().items():
            assert torch.equal(tensor, self.good.training.module.state_dict()[name]), f"{name} was read wrongly"

    def try_checkpoint(self) -> None:
        """A checkpoint as `--resume` reads it: damaged, or wrong inside with a SHA-256 that fits."""
        tensors, facts = self.good.tensors, self.good.facts
        match self.random.randrange(3):
            case 0:
                facts = self.grammar.json(json.loads(facts)).decode(errors="replace").encode()
            case 1:
                shape = tuple(self.random.randrange(4) for _ in range(self.random.randrange(4)))
                kind = self.random.choice((torch.float32, torch.int64, torch.bool, torch.bfloat16, torch.complex64))
                tensors = tensors | {self.random.choice(list(tensors)): torch.zeros(shape, dtype=kind)}
            case _:
                name = self.random.choice(list(tensors))
                tensors = {key: value for key, value in tensors.items() if key != name}
        content = checkpoint.encode(tensors, facts)
        if self.random.random() < 0.3:
            content = formats.safetensors(self.grammar, content)
        path = self.write("checkpoint-000001.safetensors", content)
        state.restore(self.good.training, checkpoint.read(path), self.good.who)

    def try_safetensors(self) -> None:
        """An exported file as `predict` reads it."""
        metadata = {"mnist_accel_facts": "1", "class_names": json.dumps(list("0123456789")), "model": "small-cnn"}
        state_dict = self.good.training.module.state_dict()
        good = safetensors.torch.save({name: value.contiguous() for name, value in state_dict.items()}, metadata)
        classifier.load(self.write("w.safetensors", formats.safetensors(self.grammar, good)), torch.device("cpu"))

    def try_onnx(self) -> None:
        """An exported file as `inspect` reads it: nothing in it runs."""
        from onnx import helper, numpy_helper

        tensor = numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
        tensor.dims[0] = self.random.choice((4, 4, 0, -1, 2**62))
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [], [], [tensor])
        model = helper.make_model(graph)
        helper.set_model_props(model, {self.random.choice(formats.TEXTS): self.random.choice(formats.TEXTS)})
        content = self.grammar.damaged(model.SerializeToString())
        exported.read_onnx(self.write("m.onnx", content).read_bytes(), Path("m.onnx"))

    def try_record(self) -> None:
        """The JSON beside weights, as `evaluate` reads it."""
        path = self.folder / "r.pth"
        path.write_bytes(self.good.weights)
        self.write("r.json", self.grammar.json(self.good.record))
        classifier.load(path, torch.device("cpu"))

    def try_run(self) -> None:
        """A finished run, as `report` and `compare` read it."""
        epoch = vars(EpochRecord(1, 0.5, 0.9, 0.4, 0.9, 0.001, 100.0, 1.0))
        place = self.write("run/mnist_cnn_model.json", self.grammar.maybe(json.dumps(self.good.record).encode(), b"{}"))
        self.write("run/metrics.jsonl", formats.lines(self.grammar, [epoch, epoch]))
        losses = [b"epoch,step,loss", b"1,1,0.5", self.grammar.maybe(b"1,2,0.4", b"1,2", b"1,2,x", b"1,2,1e999", b"\0")]
        self.write("run/step_losses.csv", b"\n".join(losses) + b"\n")
        Run.load(place.parent)

    def try_trace(self) -> None:
        """A trace, as `diff` reads it."""
        header = {"format_version": trace.FORMAT_VERSION, "facts": {"precision": "float32"}, "layers": {}}
        trace.read(self.write("t.jsonl", formats.lines(self.grammar, [header, {"step": 1, "loss": 0.5}])))

    def try_certificate(self) -> None:
        """A certificate, as `certify --compare` reads it."""
        known = {"passed": True, "sections": [], "machine": {}, "versions": {}, "time": "", "sha256": "0" * 64}
        certify.read(self.write("certificate.json", self.grammar.json(known)))

    def try_idx(self) -> None:
        """An IDX file. The reader of a folder turns ValueError into a message."""
        path = self.write("images", formats.idx(self.grammar, self.random.choice(((20, 28, 28), (20,)))))
        try:
            array_files.parse_idx(path.read_bytes(), "images", self.random.choice((1, 3)))
        except ValueError as error:
            raise UserError(str(error)) from error

    def try_gz(self) -> None:
        """A packed data file in the data folder."""
        content = formats.packed(self.grammar, formats.idx(self.grammar, (10_000,)))
        folder = self.write("FashionMNIST/raw/t10k-labels-idx1-ubyte.gz", content).parent
        arrays, _, problems = named_sets.read_folder(folder, named_sets.NAMED_SETS["fashion-mnist"])
        if problems and not arrays:
            raise UserError(problems[0])

    def try_npz(self) -> None:
        """`--dataset npz:`."""
        array_files.load_file("npz:d.npz", self.write("d.npz", formats.npz(self.grammar)))

    def try_csv(self) -> None:
        """`--dataset csv:`."""
        array_files.load_file("csv:d.csv", self.write("d.csv", formats.csv(self.grammar)))

    def try_recipe(self) -> None:
        """A file as `--recipe` reads it."""
        good = min(recipe.FOLDER.glob("*.toml")).read_bytes()
        content = self.random.choice((self.grammar.damaged(good), formats.toml(self.grammar, list(RECIPE_KEYS))))
        TrainConfig(recipe=str(self.write("r.toml", content)))

    def try_picture(self) -> None:
        """A picture, as `predict` reads it."""
        path = self.write("p.png", formats.picture(self.grammar))
        (result,) = predict.read_pictures([str(path)], self.good.classifier)
        if result.error:
            raise UserError(result.error)


def peak_memory_mb() -> int:
    """Peak memory of this process. Linux only; getrusage would include the parent process."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024


def try_one(fuzzer: Fuzzer, kind: str, where: str) -> tuple[str, float]:
    """Make and read one file: the outcome and the seconds of the processor."""
    try:
        fuzzer.formats()[kind]()
        outcome = "read"
    except UserError as error:
        outcome = "refused" if str(error).strip() else "refused without a word"
    except Exception:
        outcome = "TRACEBACK"
        print(f"{where} ({kind}):", file=sys.stderr)
        traceback.print_exc()
    faulthandler.cancel_dump_traceback_later()
    if fuzzer.mark.exists():
        outcome = "CODE RAN"
        fuzzer.mark.unlink()
    if fuzzer.has_lost():
        outcome = "INPUT CHANGED"
    seconds = time.process_time() - fuzzer.began
    fuzzer.written.clear()
    return outcome, seconds


def block(number: int, seed: int, good: Good) -> dict[str, Any]:
    """Read one block of files."""
    outcomes: Counter[str] = Counter()
    slowest, largest = (0.0, ""), (0, "")
    for place in range(BLOCK):
        generator = random.Random(f"{seed}-{number}-{place}")
        with tempfile.TemporaryDirectory() as folder:
            fuzzer = Fuzzer(Path(folder), good, generator)
            kind = generator.choice(list(fuzzer.formats()))
            outcome, seconds = try_one(fuzzer, kind, f"block {number}, input {place}")
        outcomes[f"{kind}: {outcome}"] += 1
        memory = peak_memory_mb() - fuzzer.memory_before_mb
        slowest, largest = max(slowest, (round(seconds, 1), kind)), max(largest, (memory, kind))
    return {"outcomes": dict(outcomes), "slowest": slowest, "largest": largest}


def summary(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all blocks."""
    outcomes: Counter[str] = Counter()
    for one in blocks:
        outcomes.update(one["outcomes"])
    slowest, largest = (max(tuple(one[name]) for one in blocks) for name in ("slowest", "largest"))
    failures = sum(count for name, count in outcomes.items() if name.split(": ")[1] not in ("read", "refused"))
    return {
        "inputs": outcomes.total(),
        "failures": failures,
        "slowest_seconds": slowest,
        "peak_memory_mb": largest,
        "outcomes": dict(sorted(outcomes.items())),
    }


def main() -> None:
    """Read all inputs and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="files to add, in blocks of 100")
    add_options(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # zipfile and NumPy warn of what the grammars make
    evidence = Evidence(options.results)
    with tempfile.TemporaryDirectory() as name:
        good = make_good(Path(name))
        for number in evidence.numbers(options.inputs // BLOCK, options.minutes):
            evidence.add(trial=number, **block(number, options.seed, good))
    found = summary(evidence.trials())
    print(json.dumps(found))
    is_slow, is_large = found["slowest_seconds"][0] > SECONDS_LIMIT, found["peak_memory_mb"][0] > MEMORY_LIMIT_MB
    raise SystemExit(found["failures"] > 0 or is_slow or is_large)


if __name__ == "__main__":
    main()
