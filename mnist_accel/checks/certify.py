"""`mnist-accel certify`: examines in sections whether this machine trains correctly, and writes a certificate."""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from mnist_accel.checks import arithmetic, convergence, machine_speed, processes, recovery, repeatability
from mnist_accel.checks.trial_runs import Trials
from mnist_accel.errors import UserError, printable
from mnist_accel.files import atomic, run_record
from mnist_accel.files.untrusted import read_limited
from mnist_accel.hardware.accelerator import accelerator_type, gpu_count
from mnist_accel.hardware.cores import available_cores, cpu_name
from mnist_accel.reports import pages

Outcome = tuple[bool | None, str, dict[str, Any]]
Sections = dict[str, tuple[Callable[[Trials], Outcome], str]]
SECTIONS: Sections = {
    "arithmetic": (
        arithmetic.check,
        "the device or its kernels compute wrong numbers; try another version of torch and of the driver, "
        "and `speedups = false` in a recipe",
    ),
    "repeatability": (
        repeatability.check,
        "test the memory and the cooling of this machine, and remove overclocking; results here are not reliable",
    ),
    "processes": (processes.check, "processes do not train together; do not use several on this machine"),
    "nothing lost": (
        recovery.check,
        "do not rely on --resume here; look at the disk and the file system of the folder",
    ),
    "convergence": (
        convergence.check,
        "training runs, but not as elsewhere; look at the data set, the changes to the code, and the versions",
    ),
    "speed": (machine_speed.check, "run it again while nothing else runs"),
}
"""Each section's check, and what to do when it fails."""
LARGEST_FILE = 2**20
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Section:
    """The result of one section.

    Attributes:
        passed: None where there is no verdict: a speed, or what this machine cannot run.
        summary: in words.
        figures: as JSON values.
        advice: what to do; empty unless the section failed.
    """

    name: str
    passed: bool | None
    summary: str
    figures: dict[str, Any]
    advice: str
    seconds: float

    @property
    def word(self) -> str:
        return {True: "pass", False: "FAIL", None: "none"}[self.passed]

    def as_line(self) -> Text:
        """The result for people."""
        style = {True: "green", False: "bold red", None: "yellow"}[self.passed]
        line = Text(f"{self.word}  ", style=style).append(f"{self.name:<14}", style="bold")
        line.append(f"{self.seconds:>6.1f} s  {self.summary}", style="not bold")
        return line.append(f"\n      {self.advice}", style="red") if self.advice else line


def certify(
    trials: Trials, running: Callable[[str], AbstractContextManager[object]], sections: Sections = SECTIONS
) -> Iterator[Section]:
    """Run the sections. One that ends with an error has failed.

    Args:
        trials: the extent; each section gets a folder of its own inside a temporary one in `trials.folder`.
        running: called with a section's name; the context lasts as long as the section.
        sections: by name, the check, and what to do when it fails.
    """
    with tempfile.TemporaryDirectory(prefix=".certify-", dir=trials.folder) as name:
        inside = replace(trials, folder=Path(name).resolve())
        for number, (section, (check, advice)) in enumerate(sections.items(), 1):
            began = time.monotonic()
            try:
                with running(f"{number}/{len(sections)} {section}"):
                    passed, summary, figures = check(inside)
            except Exception as error:  # whatever a broken machine raises is a finding
                passed, summary, figures = False, printable(f"{type(error).__name__}: {error}", 300), {}
            seconds = round(time.monotonic() - began, 1)
            yield Section(section, passed, summary, figures, "" if passed is not False else advice, seconds)


def certificate(sections: list[Section]) -> dict[str, Any]:
    """The certificate as JSON values, with the SHA-256 of its other values."""
    device = accelerator_type()
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "passed": all(section.passed is not False for section in sections),
        "sections": [asdict(section) for section in sections],
        "machine": {"cpu": cpu_name(), "cores": available_cores(), "device": device or "cpu", "gpus": gpu_count()},
        "versions": run_record.versions(),
        "git_commit": run_record.git_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    content = json.loads(json.dumps(content), parse_constant=str)  # JSON has no NaN
    return {**content, "sha256": _sha256(content)}


def write(content: dict[str, Any], folder: Path) -> list[Path]:
    """Write certificate.json and certificate.html into `folder`; their paths."""
    page = pages.render("certificate.html", title="Certificate", it=content)
    paths = [folder / "certificate.json", folder / "certificate.html"]
    atomic.publish({paths[0]: (json.dumps(content, indent=1) + "\n").encode(), paths[1]: page})
    return paths


def read(path: Path) -> dict[str, Any]:
    """A certificate.

    Raises:
        UserError: the file is missing, is no certificate, or was changed.
    """
    try:
        content = json.loads(read_limited(path, LARGEST_FILE))
        recorded = content.pop("sha256")
        [content[key] for key in ("passed", "sections", "machine", "versions", "time")]
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}", "name a certificate.json") from error
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a certificate", "name a certificate.json that certify has written") from error
    if recorded != _sha256(content):
        raise UserError(f"{path}: this certificate was changed after it was made (SHA-256 differs)", "make it again")
    return dict(content)


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """What differs between two certificates: machine, versions, and the sections' verdicts and summaries."""

    def values(content: dict[str, Any]) -> dict[str, str]:
        sections = {section["name"]: section for section in content["sections"]}
        words = {name: f"{Section(**section).word}: {section['summary']}" for name, section in sections.items()}
        return {name: str(value) for name, value in (content["machine"] | content["versions"] | words).items()}

    one, other = values(first), values(second)
    names = list(dict.fromkeys([*one, *other]))
    return {name: (one.get(name, "-"), other.get(name, "-")) for name in names if one.get(name) != other.get(name)}


def verdict(content: dict[str, Any]) -> str:
    """The closing line."""
    failed = [section["name"] for section in content["sections"] if section["passed"] is False]
    if failed:
        return f"This machine FAILS: {', '.join(failed)}."
    return "All sections passed."


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
