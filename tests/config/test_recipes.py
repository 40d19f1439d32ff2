import json
import tomllib
from pathlib import Path

import pytest

from mnist_accel import TrainConfig
from mnist_accel.commands.recipes import recipes
from mnist_accel.config import recipe
from mnist_accel.config.settings import settings


@pytest.mark.parametrize("name", recipe.names())
def test_a_recipe_is_valid_and_says_what_to_expect_of_it_and_where(name: str) -> None:
    TrainConfig(recipe=name)
    about = tomllib.loads((recipe.FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["about"]
    assert set(about) == {"description", "reference", "expected_accuracy", "training_time", "hardware"}
    assert "%" in about["expected_accuracy"]
    assert "seeds" in about["expected_accuracy"]
    assert " s" in about["training_time"]


def test_recipes_lists_each_recipe_as_a_file_that_train_accepts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert recipes() == 0
    listed = capsys.readouterr().out
    for name in recipe.names():
        body = listed.split(f"{name}:\n\n")[1].split("    [about]")[0]
        own = tmp_path / f"my-{name}.toml"
        own.write_text("\n".join(line.removeprefix("    ") for line in body.splitlines()), encoding="utf-8")
        listed_config, config = TrainConfig(recipe=str(own)), TrainConfig(recipe=name)
        assert listed_config.model_dump(exclude={"recipe"}) == config.model_dump(exclude={"recipe"})


def test_recipes_names_every_key_with_its_default_meaning_and_limits(capsys: pytest.CaptureFixture[str]) -> None:
    recipes()
    listed = " ".join(capsys.readouterr().out.split("Keys of a recipe file")[1].split())
    recipes(json=True)
    keys = json.loads(capsys.readouterr().out)["keys"]
    known = settings(TrainConfig)
    assert keys.keys() == known.keys() - {"recipe"}
    for name, key in keys.items():
        default = "" if key["default"] is None else f" = {json.dumps(key['default'])}"
        assert f" {name}{default} {known[name].meaning}" in listed, name
        assert known[name].limits in listed
        assert all(choice in listed for choice in key["choices"])
    assert "lr = 0.001 Learning rate of Adam" in listed
    assert "A number above 0 and of at most 1000." in listed
