"""`mnist-accel certify`: examines in sections whether this machine trains correctly, and writes a certificate."""

import hashlib
import json
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from mnist_accel.checks import arithmetic, bench, convergence, processes, recovery, repeatability
from mnist_accel.checks.trial_runs import Trials
from mnist_accel.errors import UserError, printable
from mnist_accel.files import atomic, run_record
from mnist_accel.files.untrusted import read_limited, refusing
from mnist_accel.hardware.accelerator import accelerator_type, gpu_count
from mnist_accel.hardware.cores import available_cores, cpu_name
from mnist_accel.hardware.signals import StoppedError
from mnist_accel.reports import pages
from mnist_accel.reports.tables import running

Check = Callable[[Trials], tuple[bool | None, str, dict[str, Any]]]
"""A section's work; returns its verdict (None where there is none), a summary in words, and its figures."""
SECTIONS: dict[str, Check] = {
    "arithmetic": arithmetic.check,
    "repeatability": repeatability.check,
    "processes": processes.check,
    "nothing lost": recovery.check,
    "convergence": convergence.check,
    "speed": bench.check,
}
ADVICE: dict[str, str] = tomllib.loads(Path(__file__).with_name("explanations.toml").read_text("utf-8"))["advice"]


@dataclass(frozen=True)
class Section:
    """The result of one section; `advice` says what to do, and is empty unless the section failed."""

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


def certify(trials: Trials, sections: dict[str, Check] = SECTIONS) -> Iterator[Section]:
    """Run the sections, in a temporary folder inside `trials.folder`. One that ends with an error has failed."""
    with tempfile.TemporaryDirectory(prefix=".certify-", dir=trials.folder) as folder:
        inside = replace(trials, folder=Path(folder).resolve())
        for number, (name, check) in enumerate(sections.items(), 1):
            began = time.monotonic()
            try:
                with running(f"{number}/{len(sections)} {name}"):
                    passed, summary, figures = check(inside)
            except StoppedError as error:
                raise StoppedError(error.number, "stopped without a certificate", "run it again") from error
            except Exception as error:  # whatever a broken machine raises is a finding
                passed, summary, figures = False, printable(f"{type(error).__name__}: {error}", 300), {}
            advice = ADVICE.get(name, "") if passed is False else ""
            yield Section(name, passed, summary, figures, advice, round(time.monotonic() - began, 1))


def certificate(sections: list[Section]) -> dict[str, Any]:
    """The certificate as JSON values, with the SHA-256 of its other values."""
    device = accelerator_type() or "cpu"
    content: dict[str, Any] = {
        "format_version": 1,
        "passed": all(section.passed is not False for section in sections),
        "sections": [asdict(section) for section in sections],
        "machine": {"cpu": cpu_name(), "cores": available_cores(), "device": device, "gpus": gpu_count()},
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
    """A certificate. Raises UserError if the file is missing, is no certificate, or was changed."""
    with refusing(UserError, f"{path}: not a certificate", "name a certificate.json that certify has written"):
        content = json.loads(read_limited(path, 2**20))
        is_unchanged = content.pop("sha256") == _sha256(content)
    if not is_unchanged:
        raise UserError(f"{path}: this certificate was changed after it was made (SHA-256 differs)", "make it again")
    return dict(content)


def facts(content: dict[str, Any]) -> dict[str, str]:
    """What certificates are compared by: machine, versions, and the sections' verdicts and summaries."""
    sections = [Section(**section) for section in content["sections"]]
    words = {section.name: f"{section.word}: {section.summary}" for section in sections}
    return {name: str(value) for name, value in (content["machine"] | content["versions"] | words).items()}


def verdict(content: dict[str, Any]) -> str:
    """The closing line."""
    failed = [section["name"] for section in content["sections"] if section["passed"] is False]
    return f"This machine FAILS: {', '.join(failed)}." if failed else "All sections passed."


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
