"""`mnist-accel selftest`."""

from mnist_accel.commands.common import JsonOption, print_json
from mnist_accel.errors import EXIT_FAILED


def selftest(json: JsonOption = False) -> int:
    """Check on this machine that training, resuming and evaluation are correct. Takes about a minute.

    For example:
      mnist-accel selftest --json
    """
    from dataclasses import asdict

    from mnist_accel.checks.selftest import run_selftest, verdict
    from mnist_accel.reports.console import result_console, running

    console = result_console(to_stderr=json)
    checks = []
    for check in run_selftest(running):
        console.print(check.as_line())
        checks.append(check)
    passed = all(check.passed is not False for check in checks)
    console.print(verdict(checks), style="bold green" if passed else "bold red")
    if json:
        print_json({"passed": passed, "checks": [asdict(check) for check in checks]})
    return 0 if passed else EXIT_FAILED
