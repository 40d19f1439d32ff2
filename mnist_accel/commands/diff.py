from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.errors import EXIT_FAILED

TraceArgument = Annotated[Path, typer.Argument(metavar="TRACE", help="A file that train --trace wrote.")]


def diff(first: TraceArgument, second: TraceArgument, json: JsonOption = False) -> int:
    """Name the first step and layer in which two traces differ by more than rounding explains. Exit code 1 if they do.

    For example:
      mnist-accel train --recipe speedrun --model small-cnn --trace a.jsonl
      mnist-accel train --recipe speedrun --model small-cnn --processes 2 --trace b.jsonl
      mnist-accel diff a.jsonl b.jsonl
    """
    from mnist_accel.checks.trace_diff import diff_traces
    from mnist_accel.reports.tables import result_console

    found = diff_traces(first, second)
    for line in found.lines():
        result_console(to_stderr=json).print(line, markup=False)
    return finish(found.as_json(), json=json, code=EXIT_FAILED if found.difference else 0)
