import pytest
import torch
from torch import nn

from mnist_accel import TrainConfig
from mnist_accel.training.optimizer import WeightAverage, learning_rate


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
def test_a_cycle_of_few_steps_starts_at_the_peak_rate(steps: int) -> None:
    config = TrainConfig(recipe="speedrun")
    rates = [learning_rate(config, step, steps) for step in range(steps)]
    assert rates[0] == max(rates) == pytest.approx(config.lr)
    assert min(rates) > 0


def test_the_average_is_the_exponential_one_of_weights_and_running_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).double()
    average = WeightAverage(model, decay=0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(12):
        model(torch.randn(4, 1, 8, 8, dtype=torch.float64)).sum()  # moves the statistics
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * value
            else:
                expected[name] = value.clone()
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name])
