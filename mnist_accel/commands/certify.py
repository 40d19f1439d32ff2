from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.errors import EXIT_FAILED, UserError

QUICK_SEEDS = 2


def certify(
    quick: Annotated[bool, typer.Option("--quick", help="Take half a minute: fewer seeds and repetitions.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Take as long as --minutes says.")] = False,
    minutes: Annotated[float, typer.Option(min=3, max=10_000, help="Time of --full.")] = 30,
    seed: Annotated[int, typer.Option(min=0, max=2**30, help="First seed of the trainings.")] = 1000,
    output_dir: Annotated[Path, typer.Option(help="Folder for certificate.json and certificate.html.")] = Path(),
    check: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Verify a certificate; compare two.")] = None,
    json: JsonOption = False,
) -> int:
    """Find out whether this machine trains correctly. Takes about two minutes; exit code 1 if a section fails.

    For example:
      mnist-accel certify
      mnist-accel certify --check here.json --check there.json
    """
    if quick and full:
        raise UserError("--quick and --full exclude each other", "give one of them")
    if check:
        return _check(check, json=json)
    from mnist_accel.checks import certify as checks
    from mnist_accel.checks.trial_runs import Trials
    from mnist_accel.files.atomic import require_writable
    from mnist_accel.reports.tables import print_files, result_console

    require_writable(output_dir)
    seeds, burn_in_seconds = (QUICK_SEEDS, 0.0) if quick else (8, 10.0)
    if full:
        seeds, burn_in_seconds = 32, 60 * minutes - 150
    console = result_console(to_stderr=json)
    sections = []
    for section in checks.certify(Trials(output_dir, seeds, seed, burn_in_seconds, quick)):
        console.print(section.as_line())
        sections.append(section)
    content = checks.certificate(sections)
    paths = checks.write(content, output_dir)
    console.print(checks.verdict(content), style="bold green" if content["passed"] else "bold red")
    print_files(console, paths)
    return finish(content, json=json, code=0 if content["passed"] else EXIT_FAILED)


def _check(paths: list[Path], *, json: bool) -> int:
    """Verify certificates, and say in what they differ."""
    from mnist_accel.checks import certify as checks
    from mnist_accel.reports.tables import differing, print_facts, result_console

    console = result_console(to_stderr=json)
    contents = [checks.read(path) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        console.print(f"{path}, {content['time']}: {checks.verdict(content)}", style="bold", markup=False)
    different = differing(*map(checks.facts, contents))
    if different:
        shown = {name: "  |  ".join(map(str, values)) for name, values in different.items()}
        print_facts(console, shown, longest=10_000)
    passed = all(content["passed"] for content in contents)
    return finish({"passed": passed, "differences": different}, json=json, code=0 if passed else EXIT_FAILED)
