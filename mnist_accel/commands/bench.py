from typing import Annotated

import typer

from mnist_accel.commands.common import JsonOption, finish
from mnist_accel.config.settings import TrainConfig


def bench(
    recipe: Annotated[str, typer.Option(help="Recipe whose model and batch size are measured.")] = "classic",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Bursts of 100 steps of each candidate.")] = 5,
    cpu: Annotated[bool, typer.Option("--cpu", help="Use the CPU even where there is an accelerator.")] = False,
    json: JsonOption = False,
) -> int:
    """Measure how fast this machine trains, in images per second. Takes minutes.

    Each candidate runs in a process of its own, in turn with the default: this package's loop (with progress, metrics
    and checkpoints) by precision and number of processes, a hand-written loop, and the usual tutorial script. The peak
    is the measured speed of large matrix products.

    For example:
      mnist-accel bench --recipe speedrun --rounds 10 --json
    """
    config = TrainConfig(recipe=recipe, cpu=cpu)
    from mnist_accel.checks.bench import candidates, machine_facts, run_bench
    from mnist_accel.reports.tables import result_console

    compared = candidates(config)
    console = result_console(to_stderr=json)
    facts = machine_facts(config.model, compared)
    results = []
    for measured in run_bench(compared, rounds, facts):
        console.print(measured.as_line())
        results.append(measured)
    return finish({"facts": facts, "rounds": rounds, "candidates": results}, json=json)
