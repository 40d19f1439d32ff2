"""Steps before the clock starts, which are undone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mnist_accel import TrainConfig
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.training import train
from mnist_accel.training.events import Observer
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import fit
from mnist_accel.training.setup import Progress, prepare
from mnist_accel.training.warm_up import warm_up
from tests.conftest import SMALL_MNIST


def trained(folder: Path, *, warm: bool, **settings: Any) -> tuple[dict[str, Tensor], list[float]]:
    settings |= {"dataset": SMALL_MNIST, "train_samples": 200, "batch_size": 64, "epochs": 2, "threads": 1}
    config = TrainConfig(cpu=True, mixed_precision="no", output_dir=folder, **settings)
    hardware, observer = train.start(config), Observer()
    dataset = train.split(config, train.load_data(SMALL_MNIST, Path(), hardware, observer, skip_damaged=False))
    setup, progress = prepare(config, hardware, dataset), Progress()
    if warm:
        warm_up(setup, progress)
    fit(setup, progress, observer, Guard(config, {}, StopRequests(), observer))
    return setup.final_module.state_dict(), progress.step_losses.tolist()


@pytest.mark.parametrize("recipe", ["classic", "accurate"])
def test_a_warm_up_leaves_no_trace_in_the_training(tmp_path: Path, recipe: str) -> None:
    weights, losses = trained(tmp_path, warm=False, recipe=recipe)
    warm_weights, warm_losses = trained(tmp_path, warm=True, recipe=recipe)
    assert warm_losses == losses
    assert all(torch.equal(warm_weights[name], value) for name, value in weights.items())
