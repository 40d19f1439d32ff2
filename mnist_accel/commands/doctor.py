"""`mnist-accel doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import DebugOption, JsonOption, guarded, print_json
from mnist_accel.errors import EXIT_FAILED


def doctor(
    data_dir: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("data"),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what this machine and its settings are, and warn of what commonly goes wrong. Exit code 1 with warnings.

    For example:

      mnist-accel doctor

      mnist-accel doctor --data-dir data --json
    """
    raise SystemExit(guarded(lambda: _doctor(data_dir, json), debug=debug))


def _doctor(data_dir: Path, as_json: bool) -> int:
    from mnist_accel.checks.doctor import examine
    from mnist_accel.reports.console import stderr_console
    from mnist_accel.reports.tables import print_findings

    findings = examine(data_dir)
    print_findings(stderr_console(), findings.facts, findings.warnings)
    if as_json:
        print_json({"facts": findings.facts, "warnings": findings.warnings})
    return EXIT_FAILED if findings.warnings else 0
