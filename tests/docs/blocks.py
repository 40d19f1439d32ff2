"""Finds the blocks of a Markdown document that tests run or check, as a parser for Sybil.

| block | done with it |
|---|---|
| fenced, `python` | it is run; the blocks of a document share their names |
| fenced, `py`, first line `# PATH` | each part between lines of `…` must be in that file, line by line |
| indented, first word one of PROGRAMS | its commands are run |
| after the comment `<!-- process: REASON -->` | Python that is run in a process of its own |
| after the comment `<!-- file: NAME -->` | it is written into the folder in which the commands run |
| after the comment `<!-- skip: REASON -->` | nothing; the reason can be the tests that run it |
"""

import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

from sybil import Document, Example, Region
from sybil.evaluators.python import PythonEvaluator
from sybil.region import Lexeme

from tests.conftest import clean_environment

ROOT = Path(__file__).parents[2]
PROGRAMS = {"accelerate", "export", "kubectl", "mnist-accel", "pip", "podman", "python", "python3", "sky", "torchrun"}
BLOCK = re.compile(
    r"^(?:<!-- (?P<key>file|process|skip): (?P<value>[^\n]+?) -->\n\n?)?"
    r"(?:```(?P<language>\w*)\n(?P<fenced>.*?)^```$|(?<=\n\n)(?P<indented>(?: {4}[^\n]*\n)+))",
    re.MULTILINE | re.DOTALL,
)
Runner = Callable[[list[str]], None]


def parser(run: Runner, folder: Path) -> Callable[[Document], Iterator[Region]]:
    """A parser for Sybil. `run` gets the lines of each block of commands; `folder` gets the files."""

    def regions(document: Document) -> Iterator[Region]:
        for block in BLOCK.finditer(document.text):
            text = block["fenced"] if block["indented"] is None else textwrap.dedent(block["indented"])
            evaluator: Callable[[Example], None] | None = None
            if block["key"] == "file":
                evaluator = written(folder / block["value"])
            elif block["key"] == "skip":
                assert block["value"].strip()
            elif block["key"] == "process":
                evaluator = in_own_process(folder)
            elif block["language"] == "python":
                evaluator = PythonEvaluator()
            elif block["language"] == "py":
                evaluator = require_quotation
            elif block["indented"] and text.split()[0] in PROGRAMS:
                evaluator = commands(run)
            lines_before = document.text.count("\n", block.start(), block.start("fenced")) - 1
            if evaluator:
                yield Region(block.start(), block.end(), Lexeme(text, 0, lines_before), evaluator)

    return regions


def written(path: Path) -> Callable[[Example], None]:
    """Writes a block into a file."""

    def write(example: Example) -> None:
        path.write_text(example.parsed, encoding="utf-8")

    return write


def in_own_process(folder: Path) -> Callable[[Example], None]:
    """Runs a block of Python in a new process."""

    def run(example: Example) -> None:
        command = [sys.executable, "-c", example.parsed]
        done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return run


def commands(run: Runner) -> Callable[[Example], None]:
    """Runs the commands of a block."""

    def evaluate(example: Example) -> None:
        run(example.parsed.replace("\\\n", " ").splitlines())

    return evaluate


def require_quotation(example: Example) -> None:
    """Raise AssertionError where a quotation is not in the file that it names, whatever the indentation."""
    first, *lines = str(example.parsed).splitlines()
    source = plain((ROOT / first.removeprefix("# ")).read_text(encoding="utf-8").splitlines())
    for part in "\n".join(lines).split("…\n"):
        quoted = plain(part.splitlines())
        assert quoted, f"{example.path}:{example.line}: an empty quotation"
        assert quoted in source, f"{example.path}:{example.line}: not in {first}:\n{part}"


def plain(lines: list[str]) -> str:
    """Lines without indentation and without empty ones, as one text."""
    return "\n".join(["", *filter(None, map(str.strip, lines)), ""])
