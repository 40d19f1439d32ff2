from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.errors import EXIT_FAILED, UserError

FIRST_SEED = 1000
SEEDS, QUICK_SEEDS = 8, 2
BURN_IN_SECONDS = 10.0


def certify(
    quick: Annotated[bool, typer.Option("--quick", help="Take half a minute: fewer seeds and repetitions.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Take as long as --minutes says.")] = False,
    minutes: Annotated[float, typer.Option(min=3, max=10_000, help="Time of --full.")] = 30,
    seed: Annotated[int, typer.Option(min=0, max=2**30, help="First seed of the trainings.")] = FIRST_SEED,
    output_dir: Annotated[Path, typer.Option(help="Folder for certificate.json and certificate.html.")] = Path(),
    check: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Verify a certificate instead; give two to compare them.")
    ] = None,
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
    seeds, burn_in = (QUICK_SEEDS, 0.0) if quick else (SEEDS, BURN_IN_SECONDS)
    if full:
        seeds, burn_in = SEEDS * 4, 60 * minutes - 150
    console = result_console(to_stderr=json)
    sections = []
    for section in checks.certify(Trials(output_dir, seeds, seed, burn_in, quick)):
        console.print(section.as_line())
        sections.append(section)
    content = checks.certificate(sections)
    paths = checks.write(content, output_dir)
    console.print(checks.verdict(content), style="bold green" if content["passed"] else "bold red")
    print_files(console, paths)
    return finish(content, json=json, code=0 if content["passed"] else EXIT_FAILED)


def _check(paths: list[Path], *, json: bool) -> int:
    """Verify one or two certificates, and say in what they differ."""
    from mnist_accel.checks import certify as checks
    from mnist_accel.reports.tables import differing, print_facts, result_console

    if len(paths) > 2:
        raise UserError(f"--check: {len(paths)} certificates", "give one, or two to compare them")
    console = result_console(to_stderr=json)
    contents = [checks.read(path) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        console.print(f"{path}, {content['time']}: {checks.verdict(content)}", style="bold", markup=False)
    different = differing(checks.facts(contents[0]), checks.facts(contents[-1]))
    if different:
        print_facts(console, {name: f"{one}  |  {other}" for name, (one, other) in different.items()}, longest=10_000)
    passed = all(content["passed"] for content in contents)
    return finish({"passed": passed, "differences": different}, json=json, code=0 if passed else EXIT_FAILED)
