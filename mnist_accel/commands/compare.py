from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN_OR_GROUP", help="Folders of runs or groups of runs.")],
    margin: Annotated[
        float, typer.Option(min=1e-9, max=100.0, help="Largest difference that counts as none, in percentage points.")
    ] = 0.1,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the comparison as a web page.")] = None,
    json: JsonOption = False,
) -> int:
    """Compare runs, or groups of runs with several seeds, with the first one: is it better, and how sure is that.

    For example:
      mnist-accel compare group-a group-b
      mnist-accel compare first second --html comparison.html --json
    """
    from mnist_accel.errors import UserError
    from mnist_accel.files import atomic
    from mnist_accel.reports import comparison
    from mnist_accel.reports.tables import print_files, print_line, print_rows, result_console

    if len(runs) < 2:
        raise UserError(f"{runs[0]}: one folder cannot be compared", "name two or more")
    found = comparison.compare(*runs, margin=margin / 100)
    console = result_console(to_stderr=json)
    for text in found.sentences():
        print_line(console, text)
    for heads, rows in found.tables().items():
        if rows:
            print_rows(console, heads, rows)
    if html:
        atomic.publish({html: found.html()})
        print_files(console, [html])
    return finish(found.as_json(), json=json)
