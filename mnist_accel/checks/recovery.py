"""Certificate, nothing lost: saved weights, a killed run, a damaged checkpoint, a run stopped by SIGTERM."""

from typing import Any

from mnist_accel.checks.trial_runs import Trials, output_of, wait_until
from mnist_accel.config.settings import EvaluateConfig
from mnist_accel.files.checkpoint import FOLDER, CheckpointFolder
from mnist_accel.files.run_record import WEIGHTS_FILE
from mnist_accel.hardware.accelerator import accelerator_type
from mnist_accel.training.evaluate import run_evaluation
from mnist_accel.training.events import Observer
from mnist_accel.training.train import TrainResult

RUN: dict[str, Any] = {"recipe": "accurate", "epochs": 12, "batch_size": 50}
"""72 steps with batch normalisation, dropout, distortions, a schedule and averaged weights."""
LOSS_LIMIT = 0.02
"""Relative difference in test loss between a model and its saved weights: the rounding of other kernels."""
TERMINATED = 143


class _Notices(Observer):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


def check(trials: Trials) -> tuple[bool, str, dict[str, Any]]:
    """Interrupt trainings, resume them, and compare with an uninterrupted one; evaluate the saved weights."""
    settings = RUN | {"dataset": trials.dataset}
    whole = trials.train("whole", **settings)
    figures: dict[str, Any] = {"saved_weights": saved_weights_difference(trials, whole)}
    processes = {name: start(trials, name, settings) for name in ("killed", "stopped")}
    killed = CheckpointFolder(trials.folder / "killed" / FOLDER)
    wait_until(processes["killed"], lambda: len(killed.numbered()) > 1)
    processes["killed"].kill()
    processes["killed"].communicate()
    damage(killed)
    stopped = CheckpointFolder(trials.folder / "stopped" / FOLDER)
    wait_until(processes["stopped"], stopped.numbered)
    processes["stopped"].terminate()
    output_of(processes["stopped"], TERMINATED)
    is_damage_named = False
    for name in processes:
        notices = _Notices()
        resumed = trials.train(name, notices, resume="auto", checkpoint_every=4, **settings)
        is_damage_named |= any("damaged" in text for text in notices.texts)
        figures[name] = abs(resumed.test_loss / whole.test_loss - 1)
        figures[f"{name}_same_bits"] = resumed.weights_sha256 == whole.weights_sha256
    same = figures["killed_same_bits"] and figures["stopped_same_bits"]
    close = max(figures["killed"], figures["stopped"]) <= LOSS_LIMIT and accelerator_type() is not None
    passed = (same or close) and figures["saved_weights"] <= LOSS_LIMIT and is_damage_named
    word = (
        "the same, bit for bit" if same else f"DIFFERENT: test loss by {max(figures['killed'], figures['stopped']):.1e}"
    )
    summary = (
        f"weights after SIGKILL and after SIGTERM: {word}; "
        f"damaged checkpoint {'' if is_damage_named else 'NOT '}noticed; "
        f"saved weights differ by {figures['saved_weights']:.0e} in test loss (limit {LOSS_LIMIT})"
    )
    return passed, summary, figures


def start(trials: Trials, name: str, settings: dict[str, Any]) -> Any:
    """A process that trains in the folder `name` with frequent checkpoints."""
    options = [text for key, value in settings.items() for text in (f"--{key.replace('_', '-')}", value)]
    return trials.start("train", *options, "--checkpoint-every", 4, "--output-dir", name)


def damage(checkpoints: CheckpointFolder) -> None:
    """Change a bit in the middle of the newest checkpoint."""
    _, path = checkpoints.numbered()[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def saved_weights_difference(trials: Trials, whole: TrainResult) -> float:
    """The relative difference in test loss between the model after training and its weights file."""
    config = EvaluateConfig(
        weights=trials.folder / "whole" / WEIGHTS_FILE,
        dataset=trials.dataset,
        mixed_precision=whole.mixed_precision,
        output_dir=trials.folder / "evaluated",
    )
    return abs(run_evaluation(config, Observer())[0].loss / whole.test_loss - 1)
