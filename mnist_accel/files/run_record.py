"""The written record of a run: metrics.jsonl, and the facts in the JSON beside the weights. Writer and reader."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from mnist_accel import __version__
from mnist_accel.config.settings import RunConfig
from mnist_accel.errors import WeightsError
from mnist_accel.training.events import EpochRecord

FORMAT_VERSION = 1
"""Of the JSON beside the weights; a reader refuses a higher one."""


def history_lines(history: Iterable[EpochRecord]) -> bytes:
    """metrics.jsonl: one JSON object a line and epoch; validation figures where samples were held out."""
    lines = []
    for record in history:
        values = dataclasses.asdict(record)
        if record.validation_loss is None:
            del values["validation_loss"], values["validation_accuracy"]
        lines.append(json.dumps(values) + "\n")
    return "".join(lines).encode()


def record_bytes(record: dict[str, Any]) -> bytes:
    """The JSON beside the weights."""
    return (json.dumps({"format_version": FORMAT_VERSION} | record, indent=2, allow_nan=False) + "\n").encode()


def record_path(weights: Path) -> Path:
    """Where the record of a weights file is."""
    return weights.with_suffix(".json")


def read_record(weights: Path) -> dict[str, Any] | None:
    """The record beside a weights file, or None where there is none.

    Raises:
        WeightsError: it is damaged, or written by a later version.
    """
    path = record_path(weights)
    advice = "delete it, and name --dataset, to evaluate the weights without it"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a readable JSON file ({error})", advice) from error
    if not isinstance(record, dict) or not isinstance(record.get("format_version"), int):
        raise WeightsError(f"{path}: not a record of this program", advice)
    if record["format_version"] > FORMAT_VERSION:
        raise WeightsError(
            f"{path}: format version {record['format_version']}, this program reads up to {FORMAT_VERSION}",
            "upgrade mnist-accel",
        )
    expected = {"model": str, "dataset": dict, "weights_sha256": str}
    wrong = [key for key, kind in expected.items() if not isinstance(record.get(key), kind)]
    if not wrong:
        names = record["dataset"].get("class_names")
        if not isinstance(record["dataset"].get("name"), str):
            wrong = ["dataset name"]
        elif not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            wrong = ["class names"]
    if wrong:
        raise WeightsError(f"{path}: no usable {', '.join(wrong)} in it", advice)
    return record


def config_facts(config: RunConfig) -> dict[str, Any]:
    """A configuration as JSON values."""
    return config.as_json()


def versions() -> dict[str, str]:
    """Versions of what computes the result."""
    packages = ("torch", "accelerate", "numpy")
    own = {"python": platform.python_version(), "mnist-accel": __version__}
    return own | {name: metadata.version(name) for name in packages}


def git_commit() -> str | None:
    """Commit of the checkout that this package runs from, with "-dirty" where its files differ from that; or None."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None  # installed into some other project's checkout
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--untracked-files=no", "--", ".") else commit
