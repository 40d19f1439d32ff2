"""`mnist-accel selftest`."""

from __future__ import annotations

from mnist_accel.commands.common import DebugOption, JsonOption, guarded, print_json
from mnist_accel.errors import EXIT_FAILED


def selftest(json: JsonOption = False, debug: DebugOption = False) -> None:
    """Check on this machine that training, resuming and evaluation are correct. Takes about a minute.

    For example:

      mnist-accel selftest --json
    """
    raise SystemExit(guarded(lambda: _selftest(json), debug=debug))


def _selftest(as_json: bool) -> int:
    from dataclasses import asdict

    from mnist_accel.checks import pages
    from mnist_accel.checks.selftest import run_selftest, verdict

    console = pages.results_console(as_json)
    checks = run_selftest(pages.running, lambda check: pages.print_check(console, check))
    passed = all(check.passed is not False for check in checks)
    console.print(verdict(checks), style="bold green" if passed else "bold red")
    if as_json:
        print_json({"passed": passed, "checks": [asdict(check) for check in checks]})
    return 0 if passed else EXIT_FAILED
