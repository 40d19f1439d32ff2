from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.errors import EXIT_FAILED


def doctor(
    data_dir: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("data"), json: JsonOption = False
) -> int:
    """Show the facts and settings of this machine and warn of common mistakes. Exit code 1 with warnings.

    For example:
      mnist-accel doctor --data-dir data --json
    """
    from mnist_accel.checks.doctor import examine
    from mnist_accel.reports.tables import print_facts, print_line, result_console

    findings = examine(data_dir)
    console = result_console(to_stderr=json)
    print_facts(console, findings.facts, longest=10_000)
    for warning in findings.warnings:
        print_line(console, f"WARNING: {warning}", "bold yellow")
    if not findings.warnings:
        console.print("No problems found.", style="green")
    return finish(findings, json=json, code=EXIT_FAILED if findings.warnings else 0)
