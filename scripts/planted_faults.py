"""Plants faults into training and counts how often `certify` finds them.

    python scripts/planted_faults.py trials.jsonl --trials 20 --minutes 60

Each trial is a process with one fault, which runs the sections of `certify --quick` with seeds of its own until a
section fails; the section that found the fault before comes first. For a healthy run a failure is a false alarm, and
all sections run. Each trial is appended to the file, and another call goes on there. Faults are in scripts/faults.py.
"""

import itertools
import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.faults import FAULTS, HEALTHY, TRIAL, plant

if TYPE_CHECKING:
    from mnist_accel.checks.trial_runs import Trials

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ["accelerate", "rich.console", "scipy.stats", "torch", "typer"]
"""Imported once for all trials."""
FIRST_SEED = 1000
NAMES = (*FAULTS, *HEALTHY)
BY_COST = ("arithmetic", "repeatability", "processes", "nothing lost", "convergence", "speed")
"""The sections of a certificate; cheap ones first."""


def trial(fault: str, number: int, first: str) -> dict[str, Any]:
    """In a new process: plant the fault, and run the sections, `first` before the others, until one fails."""
    began = time.monotonic()
    os.environ[TRIAL] = str(number)
    found: dict[str, Any] = {"fault": fault, "trial": number, "section": None}
    with tempfile.TemporaryDirectory() as folder:
        # Processes that this one starts get the fault, too.
        (Path(folder) / "sitecustomize.py").write_text(f"from scripts import faults\nfaults.plant({fault!r})\n")
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, str(ROOT), os.environ.get("PYTHONPATH", "")])
        plant(fault)
        from mnist_accel.checks.certify import SECTIONS, certify
        from mnist_accel.checks.trial_runs import Trials
        from mnist_accel.commands.certify import QUICK_SEEDS

        sections = {name: SECTIONS[name] for name in sorted(BY_COST, key=lambda name: name != first)}
        if first in ("", "arithmetic"):
            sections = {"arithmetic, its cheapest parts": cheapest_parts} | sections
        trials = Trials(Path(folder), QUICK_SEEDS, FIRST_SEED + 100 * number, burn_in_seconds=0, is_quick=True)
        for section in certify(trials, sections):
            if section.passed is False:
                found |= {"section": section.name.partition(",")[0], "summary": section.summary}
                break
    return found | {"seconds": round(time.monotonic() - began)}


def cheapest_parts(trials: "Trials") -> tuple[bool, str, dict[str, Any]]:
    """Two of the comparisons of the section on arithmetic, which fails if one of them does. They take a second."""
    from mnist_accel.checks import arithmetic

    share = arithmetic.share_of_limit(
        arithmetic.exact_losses(trials, "small-cnn"), arithmetic.reference()["exact"]["small-cnn"]
    )
    zeros, _, is_right = arithmetic.check_dropout()
    return share <= 1 and is_right, f"losses differ by {share:.0e} of the limit; dropout zeroes {zeros:.1%}", {}


def finished(output: Path) -> dict[str, list[dict[str, Any]]]:
    """The trials in the output file, by fault."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    results: dict[str, list[dict[str, Any]]] = {fault: [] for fault in NAMES}
    for line in lines:
        result = json.loads(line)
        results[result["fault"]].append(result)
    return results


def usual_section(results: list[dict[str, Any]]) -> str:
    """The section that found a fault most often; "" if none did."""
    counts = Counter(result["section"] or "" for result in results)
    return counts.most_common(1)[0][0] if counts else ""


def main(output: Path, trials: int = 20, minutes: float = float("inf"), faults: list[str] | None = None) -> None:
    """Run trials until each fault has `trials` of them or the time is over, and print the table of all trials."""
    end = time.monotonic() + 60 * minutes
    wanted = [fault for fault in NAMES if not faults or any(part in fault for part in faults)]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        for number, fault in itertools.product(range(trials), wanted):
            known = finished(output)[fault]
            if number not in [result["trial"] for result in known] and time.monotonic() < end:
                result = processes.submit(trial, fault, number, usual_section(known)).result()
                with output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
    print("| fault | found | by section |\n|---|---|---|")
    for fault, results in finished(output).items():
        counts = Counter(result["section"] for result in results if result["section"])
        sections = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        print(f"| {fault} | {counts.total()} of {len(results)} | {sections} |")


if __name__ == "__main__":
    import typer

    typer.run(main)
