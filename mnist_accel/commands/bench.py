"""`mnist-accel bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mnist_accel.commands.common import DebugOption, JsonOption, guarded, print_json


def bench(
    recipe: Annotated[str, typer.Option(help="Whose model and batch size are measured.")] = "seed",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Bursts of 100 steps of each way to train.")] = 5,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even where there is an accelerator.")] = False,
    output_dir: Annotated[Path, typer.Option(help="Folder for the picture, benchmark.png.")] = Path(),
    json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what this machine gives: images/s by precision, memory format, compilation and processes; takes minutes.

    Each way is measured in turn with the default one, each in a process of its own: this package's loop with progress,
    metrics and checkpoints, loops written by hand, and the plain script of tutorials. Data are random.

    For example:

      mnist-accel bench

      mnist-accel bench --recipe speedrun --rounds 10 --json
    """
    raise SystemExit(guarded(lambda: _bench(recipe, rounds, cpu, output_dir, json), debug=debug))


def _bench(recipe: str, rounds: int, cpu: bool, output_dir: Path, as_json: bool) -> int:
    from mnist_accel.config.settings import TrainConfig

    config = TrainConfig(recipe=recipe, cpu=cpu, output_dir=output_dir)
    from mnist_accel.checks.bench import candidates, default_candidate, run_bench
    from mnist_accel.files import atomic as files
    from mnist_accel.reports.console import stderr_console
    from mnist_accel.reports.plots import speeds
    from mnist_accel.reports.tables import print_measured

    files.require_writable(config.output_dir)
    default = default_candidate(config)
    console = stderr_console()
    found, facts = run_bench(default, candidates(default), rounds, lambda measured: print_measured(console, measured))
    picture = config.output_dir / "benchmark.png"
    files.write_whole(picture, speeds(found, f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}"))
    console.print(f"  {picture}")
    if as_json:
        print_json({"facts": facts, "rounds": rounds, "ways": [measured.as_json() for measured in found]})
    return 0
