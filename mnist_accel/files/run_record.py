"""The record of a run: its JSON beside the weights, and the figures of its epochs and steps. Writers and readers."""

import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from mnist_accel import __version__
from mnist_accel.errors import OutputError, WeightsError
from mnist_accel.files.atomic import exists
from mnist_accel.files.untrusted import read_limited, refusing

WEIGHTS_FILE = "mnist_cnn_model.pth"
METRICS_FILE = "metrics.jsonl"
PARTIAL_METRICS_FILE = "metrics.partial.jsonl"
STEP_LOSSES_FILE = "step_losses.csv"
FORMAT_VERSION = 1  # of the JSON beside the weights. A reader refuses a later one.
LARGEST_RECORD = 2**22


def _plain_text(text: str) -> str:
    if len(text) > 300 or not text.isprintable():
        raise ValueError("not a short, printable text")
    return text


PlainText = Annotated[str, AfterValidator(_plain_text)]


class _Dataset(BaseModel, strict=True, extra="allow"):
    name: PlainText
    class_names: list[PlainText]


class _Record(BaseModel, strict=True, extra="allow"):
    """The parts of a record that readers rely on."""

    format_version: int = Field(le=FORMAT_VERSION)
    model: PlainText
    recipe: PlainText | None = None
    dataset: _Dataset
    config: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    weights_sha256: PlainText


def append_lines(path: Path, lines: bytes, *, restart: bool = False) -> None:
    """Append to a file that can be watched while the run goes on and survives a crash; `restart` empties it first."""
    with refusing(OutputError, f"cannot write {path}", "make room"), path.open("wb" if restart else "ab") as file:
        file.write(lines)


def history_lines(history: Iterable[object]) -> bytes:
    """The lines of metrics.jsonl, one per epoch. Validation figures are left out where no samples were held out."""
    rows = [vars(record).items() for record in history]
    known = [{name: value for name, value in row if value is not None or "validation" not in name} for row in rows]
    return "".join(f"{json.dumps(row)}\n" for row in known).encode()


def checkpoint_line(path: Path, steps: int) -> bytes:
    """The line of metrics.partial.jsonl about a checkpoint after `steps` optimizer steps, with the time in UTC."""
    values = {"checkpoint": str(path), "steps": steps, "time": datetime.now(UTC).isoformat(timespec="seconds")}
    return (json.dumps(values) + "\n").encode()


def step_loss_lines(losses: Iterable[float], steps_per_epoch: int) -> bytes:
    """The lines of step_losses.csv: the training loss of every optimizer step, in nats."""
    rows = [f"{step // steps_per_epoch + 1},{step + 1},{loss:.6g}\n" for step, loss in enumerate(losses)]
    return "".join(["epoch,step,loss\n", *rows]).encode()


def record_bytes(record: dict[str, Any]) -> bytes:
    """The JSON beside the weights."""
    return (json.dumps({"format_version": FORMAT_VERSION} | record, indent=2, allow_nan=False) + "\n").encode()


def record_path(weights: Path) -> Path:
    """The path of the record of a weights file."""
    return weights.with_suffix(".json")


def read_record(weights: Path) -> dict[str, Any] | None:
    """The record beside a weights file, or None. Raises WeightsError if it is damaged, or of a later version."""
    path = record_path(weights)
    if path == weights or not exists(path):  # equal: the record was named in place of the weights
        return None
    hint = "delete it, and give --dataset, to evaluate the weights without it"
    with refusing(WeightsError, f"{path}: not a record of this version", hint):
        found = _Record.model_validate_json(read_limited(path, LARGEST_RECORD)).model_dump()
        record_bytes(found)  # Python reads numbers that are no JSON, such as NaN
        return found


def versions() -> dict[str, str]:
    """Versions of the packages that compute the result."""
    own = {"python": platform.python_version(), "mnist-accel": __version__}
    return own | {name: metadata.version(name) for name in ("torch", "accelerate", "numpy")}


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with "-dirty" after changes; None outside a checkout."""
    checkout = Path(__file__).parents[2]
    git = ("git", f"--git-dir={checkout / '.git'}", f"--work-tree={checkout}")  # of no project around it
    command = (*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True, timeout=10).strip()
    except (OSError, subprocess.SubprocessError):
        return None
