"""Certificate, speed: images per second, share of the peak, time of a checkpoint; reported, never failed."""

from typing import Any

from mnist_accel.checks.arithmetic import precisions, reference
from mnist_accel.checks.bench import candidates, machine_facts
from mnist_accel.checks.trial_runs import Trials
from mnist_accel.config.settings import TrainConfig
from mnist_accel.reports.timing import Timing

RECIPE = "speedrun"
STEPS_PER_CHECKPOINT, CHECKPOINTS = 24, 9


def check(trials: Trials) -> tuple[None, str, dict[str, Any]]:
    """Train once without and once with checkpoints. Other programs slow a machine down, so there is no limit."""
    settings: dict[str, Any] = {"recipe": RECIPE, "dataset": "mnist", "mixed_precision": precisions()[-1]}
    result = trials.train("speed", **settings)
    timing = Timing()
    trials.train("speed", timing, checkpoint_every=STEPS_PER_CHECKPOINT, **settings)
    stall = timing.spent.seconds["checkpoints"] / CHECKPOINTS
    facts = machine_facts(result.model, candidates(TrainConfig(recipe=RECIPE))[:1])
    (peak,) = facts["matrix_flop_per_second"].values()
    share = result.images_per_second * facts["flop_per_image"] / peak
    figures = {"images_per_second": result.images_per_second, "peak_share": share, "checkpoint_seconds": stall}
    key = [result.device_name, result.threads, result.mixed_precision]
    known = [machine["images_per_second"] for machine in reference()["machines"] if machine["key"] == key]
    compared = f"{result.images_per_second / known[0]:.0%} of this kind's" if known else "no reference for this kind"
    summary = (
        f"{result.images_per_second:,.0f} images/s ({compared}), {share:.0%} of the peak of matrix products; "
        f"a checkpoint takes {1000 * stall:.0f} ms"
    )
    return None, summary, figures | {"known_images_per_second": known[0] if known else None}
