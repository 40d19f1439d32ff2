"""`mnist-accel selftest`."""

from __future__ import annotations

from mnist_accel.commands.common import DebugOption, JsonOption, guarded, print_json
from mnist_accel.errors import EXIT_FAILED


def selftest(json: JsonOption = False, debug: DebugOption = False) -> None:
    """Prove the promises on this machine, in about a minute: what one runs on a new server.

    Trains and evaluates; kills, resumes and compares; one against two processes; counts; compares precisions.

    For example:

      mnist-accel selftest

      mnist-accel selftest --json
    """
    raise SystemExit(guarded(lambda: _selftest(json), debug=debug))


def _selftest(as_json: bool) -> int:
    from dataclasses import asdict

    from mnist_accel.checks.selftest import run_selftest
    from mnist_accel.reports.console import stderr_console
    from mnist_accel.reports.tables import print_check

    console = stderr_console()
    checks = run_selftest(lambda check: print_check(console, check))
    passed = all(check.passed is not False for check in checks)
    if as_json:
        print_json({"passed": passed, "checks": [asdict(check) for check in checks]})
    return 0 if passed else EXIT_FAILED
