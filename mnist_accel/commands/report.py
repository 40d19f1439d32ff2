from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN_OR_GROUP", help="Folder of a run or a group of runs.")] = Path(),
    json: JsonOption = False,
) -> int:
    """Write report.html into the folder of a run: curves, mistakes, calibration, configuration, environment.

    For example:
      mnist-accel report group --json
    """
    from mnist_accel.reports import run_report
    from mnist_accel.reports.tables import print_files, result_console

    path = run_report.report(run)
    print_files(result_console(to_stderr=json), [path])
    return finish({"report": str(path), "bytes": path.stat().st_size}, json=json)
