"""Certificate, nothing lost: saved weights, a killed run, a damaged checkpoint, a run stopped by SIGTERM."""

from typing import Any

from mnist_accel.checks.trial_runs import Trials, finish, wait_until
from mnist_accel.config.settings import EvaluateConfig
from mnist_accel.files.checkpoint import FOLDER, CheckpointFolder
from mnist_accel.files.run_record import WEIGHTS_FILE
from mnist_accel.hardware.accelerator import accelerator_type
from mnist_accel.training.evaluate import run_evaluation
from mnist_accel.training.events import Observer

LOSS_LIMIT = 0.02  # relative difference in test loss between a model and its saved weights: rounding of other kernels


def check(trials: Trials) -> tuple[bool, str, dict[str, Any]]:
    """Kill a training, damage its checkpoint, resume and stop it, resume it, and compare with an uninterrupted one."""
    # 72 steps with batch normalisation, dropout, distortions, a schedule and averaged weights.
    settings: dict[str, Any] = {"recipe": "accurate", "epochs": 12, "batch_size": 50, "dataset": trials.dataset}
    whole = trials.train("whole", **settings)
    folder = trials.folder / "whole"
    config = EvaluateConfig(weights=folder / WEIGHTS_FILE, mixed_precision=whole.mixed_precision, output_dir=folder)
    saved = abs(run_evaluation(config, Observer())[0].loss / whole.test_loss - 1)
    interrupted = settings | {"checkpoint_every": 4, "resume": "auto"}
    checkpoints = CheckpointFolder(trials.folder / "interrupted" / FOLDER)
    killed = trials.start("train", output_dir="interrupted", **interrupted)
    wait_until(killed, lambda: len(checkpoints.numbered()) > 1)
    killed.kill()
    killed.communicate()
    damaged, path = checkpoints.numbered()[-1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    stopped = trials.start("train", output_dir="interrupted", **interrupted)
    wait_until(stopped, lambda: any(number > damaged for number, _ in checkpoints.numbered()))
    stopped.terminate()
    _, notices = finish(stopped, code=143)  # 128 + SIGTERM
    resumed = trials.train("interrupted", **interrupted)
    is_damage_named = "damaged" in notices
    same = resumed.weights_sha256 == whole.weights_sha256
    difference = abs(resumed.test_loss / whole.test_loss - 1)
    is_close = same or (difference <= LOSS_LIMIT and accelerator_type() is not None)
    summary = (
        "weights after SIGKILL and SIGTERM: "
        f"{'the same, bit for bit' if same else f'DIFFERENT: test loss by {difference:.1e}'}; "
        f"damaged checkpoint {'' if is_damage_named else 'NOT '}noticed; "
        f"saved weights differ by {saved:.0e} in test loss (limit {LOSS_LIMIT})"
    )
    figures = {"saved_weights": saved, "resumed": difference, "same_bits": same, "damage_noticed": is_damage_named}
    return is_close and saved <= LOSS_LIMIT and is_damage_named, summary, figures
