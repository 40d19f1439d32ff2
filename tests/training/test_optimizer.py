import pytest
import torch

from mnist_accel import TrainConfig
from mnist_accel.training.optimizer import learning_rate


def test_a_constant_rate_is_constant() -> None:
    config = TrainConfig(lr=0.01)
    assert {learning_rate(config, step, 50) for step in range(50)} == {0.01}


@pytest.mark.parametrize("recipe", ["speedrun", "accurate"])
@pytest.mark.parametrize("steps", [20, 235])
def test_one_cycle_is_that_of_torch(recipe: str, steps: int) -> None:
    config = TrainConfig(recipe=recipe)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=steps, pct_start=config.warmup, cycle_momentum=False
    )
    for step in range(steps):
        assert learning_rate(config, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            schedule.step()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_cycle_of_few_steps_has_finite_positive_rates(steps: int) -> None:
    rates = [learning_rate(TrainConfig(recipe="speedrun"), step, steps) for step in range(steps)]
    assert all(0 < rate <= 0.01 for rate in rates)
