import json
import math
import os
import pickle
import tomllib
from pathlib import Path

import pytest

from mnist_accel.config import recipe as recipes
from mnist_accel.config.settings import DATASETS, MODELS, EvaluateConfig, TrainConfig, option_name, settings
from mnist_accel.data.named_sets import NAMED_SETS
from mnist_accel.errors import ConfigError, DataError, UserError
from mnist_accel.hardware.cores import available_cores
from mnist_accel.models import architectures as models


def problems_of(**values: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**values)  # type: ignore[arg-type]
    return [problem.shown(option_name) for problem in caught.value.problems]


def test_given_values_win_over_the_recipe_and_the_recipe_over_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text("epochs = 7\nlr = 0.5\n[about]\ndescription = 'mine'\n")
    config = TrainConfig(recipe=str(recipe), lr=0.25)
    assert (config.epochs, config.lr, config.batch_size) == (7, 0.25, 128)


def test_the_default_recipe_states_the_defaults() -> None:
    stated = tomllib.loads((recipes.FOLDER / "classic.toml").read_text())
    del stated["about"]
    assert stated == {name: settings(TrainConfig)[name].default for name in stated}


def test_text_is_read_as_the_command_line_gives_it() -> None:
    config = TrainConfig(epochs="3", lr="1e-2", output_dir="out", threads="2")  # type: ignore[arg-type]
    assert (config.epochs, config.lr, config.output_dir, config.threads) == (3, 0.01, Path("out"), 2)


def test_names_of_models_and_data_sets_are_those_that_exist() -> None:
    assert set(MODELS) == set(models.MODELS)
    assert set(DATASETS) == set(NAMED_SETS)


def test_all_problems_are_reported_together(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("epoch = 3\ndropout = 1.0\n")
    found = problems_of(
        recipe=str(recipe), dataset="mnsit", model="cnm", epochs="0", lr="nan", batch_size="-1", train_samples="many"
    )
    assert len(found) == 8
    text = "\n".join(found)
    for part in (
        f"recipe {recipe}: --epoch is not a setting",
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
        ("dropout", 0.999),
        ("target_accuracy", 1.5),
        ("target_accuracy", 0),
        ("gradient_accumulation_steps", 0),
        ("mixed_precision", "fp8"),
        ("dataset", ["mnist"]),
        ("cpu", "yes"),
        ("cpu", 1),
        ("lr", True),
        ("output_dir", ["a"]),
        ("resume", 3),
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


def test_more_processes_than_cores_are_refused_for_a_run_on_the_cpu_only() -> None:
    too_many = available_cores() + 1
    assert f"give at most {available_cores()}" in problems_of(processes=too_many, cpu=True, batch_size=10**6)[0]
    assert TrainConfig(processes=too_many, batch_size=10**6).processes == too_many  # the machine may have GPUs


def test_processes_must_agree_with_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert TrainConfig(processes=2).processes == 2
    assert "already started 2" in problems_of(processes=3)[0]


def test_fp16_on_the_cpu_is_refused_with_a_reason() -> None:
    assert "CPU cannot train in fp16" in problems_of(mixed_precision="fp16", cpu=True)[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("epochs = ", "not a readable TOML"),
        ("epohcs = 1", "did you mean epochs"),
        ("epochs = 'many'", "many: not a whole number"),
        ("epochs = " + "9" * 5000, "not a readable TOML"),
        ("epochs = " + "9" * 990, "whole number of at least 1"),
        ("dropout = 0.999", "at most 0.9"),
        ('cpu = "yes"', "give true or false"),
        ('output_dir = ["a"]', "not a name"),
        ('output_dir = "a\\u0000b"', "not a name"),
        ("threads = 5000", "at most 4096"),
        ("epochs.a.b = 1", "whole number"),
        (".".join(["a"] * 30_000) + " = 1", "more than"),
        ("x = " + "[" * 900, "not a readable TOML"),
        ("# " + "\n" * 100_000, "more than"),
    ],
)
def test_a_faulty_recipe_is_named(tmp_path: Path, content: str, expected: str) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(content)
    found = problems_of(recipe=str(recipe))
    assert expected in found[0]
    assert str(recipe) in found[0]


def test_an_unknown_recipe_gets_the_nearest_names() -> None:
    assert "did you mean classic" in problems_of(recipe="clasic")[0]
    assert "no such file" in problems_of(recipe="nowhere.toml")[0]


def test_missing_weights_are_found_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        EvaluateConfig(weights=tmp_path / "none.pth")
    with pytest.raises(ConfigError, match="not a file"):
        EvaluateConfig(weights=tmp_path)


@pytest.mark.parametrize("kind", ["fifo", "device", "sparse file"])
def test_a_special_or_huge_file_given_as_recipe_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "r.toml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with path.open("wb") as file:
            file.truncate(8 * 2**30)
    assert "not a readable TOML file" in problems_of(recipe=str(path))[0]


def test_a_key_of_a_recipe_is_shown_cut_and_without_control_characters(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('"\\u001b[31m' + "x" * 900 + '" = 1')
    (found,) = problems_of(recipe=str(recipe))
    assert "\x1b" not in found
    assert len(found) < 600 + len(str(recipe))


def test_names_are_taken_in_any_case_and_common_synonyms_are_understood() -> None:
    config = TrainConfig(dataset="MNIST", model="CNN", mixed_precision="FP32", recipe="Seed")
    assert (config.dataset, config.model, config.mixed_precision, config.recipe) == ("mnist", "cnn", "no", "classic")
    assert TrainConfig(dataset="IDX:Own/Data").dataset == "idx:Own/Data"
    assert "did you mean lr?" in problems_of(learning_rate=0.1)[0]


def test_a_copy_with_another_recipe_takes_the_values_of_that_recipe_and_keeps_explicit_ones() -> None:
    config = TrainConfig(recipe="accurate", epochs=3)
    changed = config.with_changes(recipe="speedrun")
    assert changed == TrainConfig(recipe="speedrun", epochs=3)
    assert changed.model == "fast-cnn"
    assert config.with_changes(epochs=None).epochs == 10
    assert pickle.loads(pickle.dumps(config)).with_changes(recipe="classic").lr == 0.001
    with pytest.raises(ConfigError, match="whole number of at least 1"):
        config.with_changes(epochs=0)


def test_errors_name_fields_in_python_and_options_on_the_command_line() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(train_samples=0, early_stop=1)
    assert "train_samples 0" in str(caught.value)
    assert "give validation_samples" in str(caught.value)
    assert "--" not in str(caught.value)
    assert "give --validation-samples" in caught.value.problems[1].shown(option_name)


def test_limits_are_printed_as_plain_numbers() -> None:
    assert problems_of(seed=-1) == [
        "--seed -1: out of range; give a whole number of at least 0 and of at most 2147483647"
    ]


def test_the_help_of_accumulation_excepts_batch_normalisation() -> None:
    assert "only batch normalisation sees" in settings(TrainConfig)["gradient_accumulation_steps"].meaning


def test_a_configuration_as_json_holds_every_setting() -> None:
    values = json.loads(json.dumps(TrainConfig(output_dir="out").model_dump(mode="json")))  # type: ignore[arg-type]
    assert values.keys() == settings(TrainConfig).keys()
    assert (values["output_dir"], values["speedups"], values["lr"]) == ("out", True, 0.001)


def test_errors_survive_pickling() -> None:
    class NumberedError(UserError):
        def __init__(self, number: int, message: str) -> None:
            super().__init__(message, "hint")
            self.number = number

    globals()["NumberedError"] = NumberedError
    NumberedError.__qualname__ = "NumberedError"
    copy = pickle.loads(pickle.dumps(NumberedError(3, "wrong")))
    assert (str(copy), copy.number) == ("wrong; hint", 3)
    with pytest.raises(ConfigError) as caught:
        TrainConfig(epochs=0)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)
    shared = DataError("missing", "download it")
    shared.is_shared = True
    assert pickle.loads(pickle.dumps(shared)).is_shared
