"""The errors a user can cause or must act on; everything else is a bug and keeps its traceback for `--debug`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

EXIT_FAILED: Final = 1
"""The run itself failed, and would again: a full disk, bad numbers."""
EXIT_BUG: Final = 70
"""An error that nobody foresaw (EX_SOFTWARE in sysexits.h)."""
EXIT_LOST: Final = 75
"""Another process ended or does not answer; trying again may help (EX_TEMPFAIL in sysexits.h)."""
EXIT_REFUSED: Final = 2
"""The command line, a file or the machine does not allow what was asked for."""
EXIT_BELOW_TARGET: Final = 3
"""Training finished, but the final test accuracy is below `--target-accuracy`."""
EXIT_INTERRUPTED: Final = 130
"""Stopped by Ctrl-C (128 + SIGINT)."""


class UserError(Exception):
    """Something that the user can put right.

    Args:
        message: what is wrong, with the value.
        hint: what to do about it; may be empty.

    Attributes:
        is_shared: whether every process of the run raises it, so that one can speak for all.
    """

    exit_code = EXIT_REFUSED
    is_shared = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class ConfigError(UserError):
    """All that is wrong with a configuration, at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class DataError(UserError):
    """A data set that is missing, damaged or not what was asked for."""


class WeightsError(UserError):
    """A weights file that is missing, damaged, hostile or of another architecture."""


class OutputError(UserError):
    """Results that cannot be written."""

    exit_code = EXIT_FAILED


class LaunchError(UserError):
    """Processes that did not come up, or did not stay up, as asked."""

    exit_code = EXIT_LOST


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known names as a question, or all of them when none is near."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    if nearest:
        return f"did you mean {' or '.join(nearest)}?"
    return f"known are {', '.join(known)}"


def printable(text: object, longest: int = 300) -> str:
    """`text` as one line without control characters, cut to `longest` characters.

    Everything that may come from a file passes through here before it is shown on a terminal.
    """
    line = " ".join(str(text)[: 4 * longest].split())
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return line if len(line) <= longest else line[: longest - 1] + "…"
