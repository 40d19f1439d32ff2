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
    """Show the facts and settings of this machine and warn of common mistakes. Exit code 1 with warnings.

    For example:

      mnist-accel doctor --data-dir data --json
    """
    raise SystemExit(guarded(lambda: _doctor(data_dir, json), debug=debug))


def _doctor(data_dir: Path, as_json: bool) -> int:
    from mnist_accel.checks import doctor, pages

    findings = doctor.examine(data_dir)
    pages.print_findings(pages.results_console(as_json), findings)
    if as_json:
        print_json({"facts": findings.facts, "warnings": findings.warnings})
    return EXIT_FAILED if findings.warnings else 0
