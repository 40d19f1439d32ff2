"""Plants faults into training and counts how often `certify` finds them.

    python scripts/planted_faults.py trials.jsonl --trials 20 --minutes 60

Each trial is a process with one fault, which runs the sections of `certify --quick` with seeds of its own until a
section fails; the section that found the fault before comes first. For a healthy run a failure is a false alarm, and
all sections run. Each trial is appended to the file, and another call goes on there. Faults are in scripts/faults.py.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.faults import FAULTS, HEALTHY, TRIAL

ROOT = Path(__file__).resolve().parents[1]
FIRST_SEED = 1000
NAMES = (*FAULTS, *HEALTHY)
BY_COST = ("arithmetic", "repeatability", "processes", "nothing lost", "convergence", "speed")
"""The sections of a certificate; cheap ones first."""


def work(first: str) -> None:
    """In a process with the fault: run the sections, `first` before the others, until one fails, and print it."""
    from contextlib import nullcontext

    from mnist_accel.checks.certify import SECTIONS, certify
    from mnist_accel.checks.trial_runs import Trials
    from mnist_accel.commands.certify import QUICK_SEEDS

    order = sorted(BY_COST, key=lambda name: name != first)
    found: dict[str, Any] = {"section": None}
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(
            Path(folder), QUICK_SEEDS, FIRST_SEED + 100 * int(os.environ[TRIAL]), burn_in_seconds=0, is_quick=True
        )
        for section in certify(trials, lambda _: nullcontext(), {name: SECTIONS[name] for name in order}):
            if section.passed is False:
                found = {"section": section.name, "summary": section.summary}
                break
    print(json.dumps(found))


def trial(fault: str, trial_number: int, first: str) -> dict[str, Any]:
    """Run `work` in a process of its own, whose children get the fault, too."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"from scripts import faults\nfaults.plant({fault!r})\n"
        (Path(folder) / "sitecustomize.py").write_text(code)
        paths = [folder, str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), TRIAL: str(trial_number)}
        command = [sys.executable, "-c", f"from scripts import planted_faults; planted_faults.work({first!r})"]
        began = time.monotonic()
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{fault}: {done.stderr[-1000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"fault": fault, "trial": trial_number, "seconds": round(time.monotonic() - began)} | found


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
    for trial_number, fault in itertools.product(range(trials), wanted):
        results = finished(output)[fault]
        if trial_number not in [result["trial"] for result in results] and time.monotonic() < end:
            with output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trial(fault, trial_number, usual_section(results))) + "\n")
    print("| fault | found | by section |\n|---|---|---|")
    for fault, results in finished(output).items():
        counts = Counter(result["section"] for result in results if result["section"])
        sections = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        print(f"| {fault} | {counts.total()} of {len(results)} | {sections} |")


if __name__ == "__main__":
    import typer

    typer.run(main)
