from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest

from mnist_accel.config import recipes
from mnist_accel.config.settings import DATASETS, MODELS, EvaluateConfig, TrainConfig, settings
from mnist_accel.data.datasets import IDX_SOURCES
from mnist_accel.errors import ConfigError
from mnist_accel.hardware.cores import available_cores
from mnist_accel.models import architectures as models


def problems_of(**values: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**values)  # type: ignore[arg-type]
    return caught.value.problems


def test_given_values_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("epochs = 7\nlr = 0.5\n[about]\ndescription = 'mine'\n")
    config = TrainConfig(recipe=str(recipe), lr=0.25)
    assert (config.epochs, config.lr, config.batch_size) == (7, 0.25, 128)


def test_the_default_recipe_states_the_defaults() -> None:
    stated = tomllib.loads((recipes.FOLDER / "seed.toml").read_text())
    del stated["about"]
    assert stated == {name: settings(TrainConfig)[name].default for name in stated}


def test_text_is_read_as_the_command_line_gives_it() -> None:
    config = TrainConfig(epochs="3", lr="1e-2", output_dir="out", threads="2")  # type: ignore[arg-type]
    assert (config.epochs, config.lr, config.output_dir, config.threads) == (3, 0.01, Path("out"), 2)


def test_names_of_models_and_data_sets_are_those_that_exist() -> None:
    assert set(MODELS) == set(models.MODELS)
    assert set(DATASETS) == {"auto", "mnist-5k", *IDX_SOURCES}


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("epoch = 3\ndropout = 1.0\n")
    found = problems_of(
        recipe=str(recipe), dataset="mnsit", model="cnm", epochs="0", lr="nan", batch_size="-1", train_samples="many"
    )
    assert len(found) == 8
    text = "\n".join(found)
    for part in (
        "'epoch'",
        "did you mean epochs",
        "--dropout 1.0",
        "did you mean mnist",
        "did you mean cnn",
        "--lr nan",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", True),
        ("epochs", "1e999"),
        ("epochs", "9" * 400),
        ("timeout", 10**15),
        ("threads", 10**9),
        ("output_dir", "x" * 300),
        ("lr", 0),
        ("lr", -1e-3),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", "fast"),
        ("batch_size", 0),
        ("seed", -1),
        ("seed", 2**31),
        ("threads", 0),
        ("processes", 0),
        ("dropout", 1.0),
        ("target_accuracy", 1.5),
        ("target_accuracy", 0),
        ("gradient_accumulation_steps", 0),
        ("mixed_precision", "fp8"),
        ("dataset", ["mnist"]),
        ("cpu", "yes"),
        ("output_dir", ""),
        ("output_dir", "a\0b"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(name: str, value: object) -> None:
    found = problems_of(**{name: value})
    assert len(found) == 1
    assert name.replace("_", "-") in found[0]


def test_a_batch_smaller_than_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "4 processes" in problems_of(batch_size=3)[0]
    assert TrainConfig(batch_size=4).batch_size == 4
    assert "give at least 8" in problems_of(batch_size=7, gradient_accumulation_steps=2)[0]


def test_more_processes_than_cores_are_refused() -> None:
    assert f"give at most {available_cores()}" in problems_of(processes=available_cores() + 1, batch_size=10**6)[0]


def test_processes_must_agree_with_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert TrainConfig(processes=2).world_size == 2
    assert "already started 2" in problems_of(processes=3)[0]


def test_fp16_on_the_cpu_is_refused_with_a_reason() -> None:
    assert "CPU has no fp16" in problems_of(mixed_precision="fp16", cpu=True)[0]


def test_an_output_folder_inside_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a folder" in problems_of(output_dir=tmp_path / "file" / "sub")[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [("epochs = ", "not a readable TOML"), ("epohcs = 1", "did you mean epochs"), ("epochs = 'x'", "whole number")],
)
def test_a_faulty_recipe_is_named(tmp_path: Path, content: str, expected: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(content)
    found = problems_of(recipe=str(recipe))
    assert expected in found[0]
    assert str(recipe) in found[0]


def test_an_unknown_recipe_gets_the_nearest_names() -> None:
    assert "did you mean seed" in problems_of(recipe="seeds")[0]
    assert "no such file" in problems_of(recipe="nowhere.toml")[0]


def test_missing_weights_are_found_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        EvaluateConfig(weights=tmp_path / "none.pth")
    with pytest.raises(ConfigError, match="not a file"):
        EvaluateConfig(weights=tmp_path)
