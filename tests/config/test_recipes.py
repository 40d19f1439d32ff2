import tomllib

import pytest

from mnist_accel import TrainConfig
from mnist_accel.config import recipe


@pytest.mark.parametrize("name", recipe.names())
def test_a_recipe_is_valid_and_says_what_to_expect_of_it_and_where(name: str) -> None:
    TrainConfig(recipe=name)
    about = tomllib.loads((recipe.FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["about"]
    assert set(about) == {"description", "reference", "expected_accuracy", "training_time", "hardware"}
    assert "%" in about["expected_accuracy"]
    assert "seeds" in about["expected_accuracy"]
    assert " s" in about["training_time"]
