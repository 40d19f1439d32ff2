"""The record of a run: its JSON beside the weights, and the figures of its epochs and steps. Writers and readers."""

import dataclasses
import json
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from mnist_accel import __version__
from mnist_accel.errors import OutputError, WeightsError, printable
from mnist_accel.files.atomic import write_whole
from mnist_accel.files.untrusted import read_limited

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WEIGHTS_FILE = "mnist_cnn_model.pth"
METRICS_FILE, PARTIAL_METRICS_FILE = "metrics.jsonl", "metrics.partial.jsonl"
STEP_LOSSES_FILE = "step_losses.csv"
FORMAT_VERSION = 1
"""Of the JSON beside the weights. A reader refuses a later one."""
LARGEST_RECORD = 2**22
PACKAGE = Path(__file__).parents[1]


def _plain_text(text: str) -> str:
    if len(text) > 300 or not text.isprintable():
        raise ValueError("not a short, printable text")
    return text


PlainText = Annotated[str, AfterValidator(_plain_text)]


class _Dataset(BaseModel):
    """The part of a record that readers rely on, about the data set."""

    name: PlainText
    class_names: list[PlainText]


class _Record(BaseModel):
    """The part of a record that readers rely on."""

    model_config = ConfigDict(strict=True, extra="allow")

    format_version: int
    model: PlainText
    dataset: _Dataset
    config: dict[str, Any] = {}
    weights_sha256: PlainText


class EpochLog:
    """A file that grows by one line of JSON per epoch and checkpoint while the run goes on, and survives a crash."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def restart(self, lines: bytes) -> None:
        """Begin with the epochs that are finished already."""
        self._write("w", lines)

    def append(self, lines: bytes) -> None:
        """Add an epoch or a checkpoint."""
        self._write("a", lines)

    def delete(self) -> None:
        """Delete the file after the complete metrics.jsonl has been written."""
        self.path.unlink(missing_ok=True)

    def _write(self, mode: str, lines: bytes) -> None:
        try:
            with self.path.open(f"{mode}b") as file:
                file.write(lines)
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error.strerror or error}", "make room") from error


def history_lines(history: "Iterable[DataclassInstance]") -> bytes:
    """The lines of metrics.jsonl, one per epoch. Validation figures are left out where no samples were held out."""
    lines = []
    for record in history:
        values = dataclasses.asdict(record)
        if values["validation_loss"] is None:
            del values["validation_loss"], values["validation_accuracy"]
        lines.append(json.dumps(values) + "\n")
    return "".join(lines).encode()


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
    """The record beside a weights file, or None where there is none.

    Raises:
        WeightsError: it is damaged, or written by a later version.
    """
    path = record_path(weights)
    advice = "delete it, and give --dataset, to evaluate the weights without it"
    try:
        record = json.loads(read_limited(path, LARGEST_RECORD))
        _Record.model_validate(record)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise WeightsError(f"{path}: not a record of this program ({where}: {first['msg']})", advice) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or printable(error, 100)
        raise WeightsError(f"{path}: not a readable JSON file ({reason})", advice) from error
    if record["format_version"] > FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format version {record['format_version']}, this program reads up to {FORMAT_VERSION}",
            "upgrade mnist-accel",
        )
    return dict(record)


def extend(weights: Path, values: dict[str, Any]) -> None:
    """Add values to the record of a weights file."""
    write_whole(record_path(weights), record_bytes((read_record(weights) or {}) | values))


def versions() -> dict[str, str]:
    """Versions of the packages that compute the result."""
    names = ("torch", "accelerate", "numpy")
    own = {"python": platform.python_version(), "mnist-accel": __version__}
    return own | {name: metadata.version(name) for name in names}


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with "-dirty" after changes; None outside a checkout."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None  # installed into the checkout of another project
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--untracked-files=no", "--", ".") else commit
