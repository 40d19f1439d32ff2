"""Prints the results of the checks: to stdout, or to stderr where --json needs stdout. Progress goes to stderr."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from statistics import median

from rich.console import Console
from rich.text import Text

from mnist_accel.checks.bench import Measured
from mnist_accel.checks.doctor import Findings
from mnist_accel.checks.selftest import Check
from mnist_accel.reports.console import stderr_console


def results_console(as_json: bool) -> Console:
    """Where results for people go; lines are wrapped only on a terminal."""
    console = stderr_console() if as_json else Console(highlight=False)
    return console if console.is_terminal else Console(stderr=as_json, highlight=False, soft_wrap=True)


def running(text: str) -> AbstractContextManager[object]:
    """Show on stderr that something runs: a spinner on a terminal, otherwise one line."""
    console = stderr_console()
    if console.is_terminal:
        return console.status(Text(text))
    console.print(Text(f"{text} …"))
    return nullcontext()


def print_measured(console: Console, measured: Measured) -> None:
    """One line of the benchmark."""
    line = Text(f"{measured.candidate.title:<30}", style="bold")
    if measured.failure:
        line.append(f"failed: {measured.failure}", style="red")
    else:
        line.append(
            f"{measured.images_per_second:>10,.0f} images/s, {measured.peak_share:.0%} of the peak, ", "not bold"
        )
        low, high = min(measured.ratios), max(measured.ratios)
        line.append(f"{median(measured.ratios):.2f} × the default ({low:.2f} to {high:.2f})", style="not bold")
    console.print(line)


def print_check(console: Console, check: Check) -> None:
    """One line of the selftest."""
    word, style = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("skip", "yellow")}[check.passed]
    line = Text(f"{word}  ", style=style)
    line.append(f"{check.name:<34}", style="bold")
    console.print(line.append(f"{check.seconds:>5.1f} s  {check.figures}", style="not bold"))


def print_findings(console: Console, findings: Findings) -> None:
    """The doctor's facts, then its warnings."""
    width = max(map(len, findings.facts)) + 2
    for name, value in findings.facts.items():
        console.print(Text(f"{name:<{width}}", style="bold").append(value, style="not bold"))
    for warning in findings.warnings:
        console.print(Text(f"WARNING: {warning}", style="bold yellow"))
    if not findings.warnings:
        console.print(Text("No problems found.", style="green"))
