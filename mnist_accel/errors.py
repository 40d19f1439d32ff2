"""Errors that a user can cause or must act on, exit codes, and the form in which errors are shown."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Self

EXIT_FAILED: Final = 1  # The run failed and would fail again, for example because the disk is full
EXIT_REFUSED: Final = 2  # The command line, a file or the machine does not allow the run
EXIT_BELOW_TARGET: Final = 3  # Training finished, but the final test accuracy is below `--target-accuracy`
EXIT_BUG: Final = 70  # Unexpected error (EX_SOFTWARE in sysexits.h)
EXIT_LOST: Final = 75  # Another process was lost; a new attempt may succeed (EX_TEMPFAIL in sysexits.h)
EXIT_INTERRUPTED: Final = 130  # Stopped by Ctrl-C (128 + SIGINT)

NO_WEIGHTS: Final = "no such file; train first (mnist-accel train) or give another file"


class UserError(Exception):
    """An error that the user can correct: what is wrong, with the value, and a hint what to do. It can be pickled."""

    exit_code = EXIT_REFUSED
    is_shared = False  # whether every process of the run raises this error, so that only one needs to print it

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...], dict[str, Any]]:
        # Exception's own method calls the class with `args`, which fails where a subclass takes other arguments.
        return type(self).__new__, (type(self), *self.args), self.__dict__


class Problem(NamedTuple):
    """One problem with the setting `field`: the value, what is wrong with it, and what to do."""

    field: str
    text: str
    see: str = ""  # another setting, which solves the problem
    source: str = ""  # the recipe that the value comes from

    def shown(self, name: Callable[[str], str] = str) -> str:
        """The problem as one line; `name` turns the name of a setting into the name that the reader knows."""
        hint = f"; give {name(self.see)}" if self.see else ""
        return f"{self.source and f'recipe {self.source}: '}{name(self.field)} {self.text}{hint}"


class ConfigError(UserError):
    """All problems of a configuration at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(problem.shown() for problem in problems))
        self.problems = list(problems)


class DataError(UserError):
    """A data set is missing, damaged, or not the expected one."""


class WeightsError(UserError):
    """A weights file is missing, damaged, hostile, or has another architecture."""


class OutputError(UserError):
    """Results cannot be written."""

    exit_code = EXIT_FAILED


class LaunchError(UserError):
    """Processes did not start, or did not stay alive."""

    exit_code = EXIT_LOST


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the most similar known names, or all known names if none is similar."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name[:100].lower(), known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(nearest)}?" if nearest else f"known are {', '.join(known)}"


def printable(text: object, longest: int = 300) -> str:
    """`text`, which may come from a file, for a terminal: one line, at most `longest` long, no control characters."""
    whole = str(text)
    line = " ".join(whole[: 4 * longest].split())
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    is_cut = len(line) > longest or len(whole) > 4 * longest
    return line[: longest - 1] + "…" if is_cut else line
