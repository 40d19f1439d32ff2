import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mnist_accel.errors import UserError
from mnist_accel.reports.runs import Group, Run
from tests.conftest import SMALL_MNIST, clean_environment, forks

SMALL = (
    "--dataset",
    SMALL_MNIST,
    "--train-samples",
    "500",
    "--model",
    "small-cnn",
    "--epochs",
    "2",
    "--threads",
    "1",
    "--mixed-precision",
    "no",
)


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "mnist_accel", "train", *SMALL, "--output-dir", str(folder), *arguments]


def train(folder: Path, *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    done = forks().run([*command(folder, *arguments)[3:], "--json"], folder.parent, 240)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout.splitlines()[-1] if done.stdout else "{}"), done.stderr


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("group")
    return folder, *train(folder, "--seeds", "3")


def test_a_group_ends_with_mean_standard_error_and_interval(group: tuple[Path, dict[str, Any], str]) -> None:
    folder, values, text = group
    accuracies = [run["test_accuracy"] for run in values["runs"]]
    mean = sum(accuracies) / 3
    assert [run["seed"] for run in values["runs"]] == [0, 1, 2]
    assert values["mean"] == pytest.approx(mean)
    assert values["standard_error"] == pytest.approx((sum((a - mean) ** 2 for a in accuracies) / 2 / 3) ** 0.5)
    assert values["ci95"][0] < values["mean"] < values["ci95"][1]
    assert f"3 runs: mean test accuracy {mean:.3%} ± " in text
    assert json.loads(json.dumps(Group.load(folder).as_json())) == values


def test_a_member_of_a_group_is_the_run_of_its_seed(group: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    alone, _ = train(tmp_path, "--seed", "2")
    assert alone["weights_sha256"] == group[1]["runs"][2]["weights_sha256"]


def test_a_run_is_read_back_as_typed_figures(group: tuple[Path, dict[str, Any], str]) -> None:
    run = Run.load(group[0] / "seed-1")
    assert run.seed == 1
    assert run.metrics() == [
        json.loads(line) | no_validation for line in (run.path / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(run.step_losses) == 8
    assert run.history[-1].test_accuracy == run.test_accuracy


no_validation = {"validation_loss": None, "validation_accuracy": None}


def test_a_group_killed_in_the_middle_resumes_to_the_same_results(
    group: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    started = subprocess.Popen(command(tmp_path, "--seeds", "3", "--quiet"), env=clean_environment())
    partial = tmp_path / "seed-1" / "metrics.partial.jsonl"
    while not (partial.exists() and partial.stat().st_size):  # one epoch of the second run is finished
        assert started.poll() is None
        time.sleep(0.005)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    with pytest.raises(UserError, match="no finished run"):
        Group.load(tmp_path)
    values, text = train(tmp_path, "--seeds", "3", "--resume", "auto")
    assert "seed-0 is finished and kept" in text
    assert "continuing from" in text
    hashes = [[run["weights_sha256"] for run in runs] for runs in (values["runs"], group[1]["runs"])]
    assert hashes[0] == hashes[1]


def test_a_finished_run_of_other_settings_is_not_counted(group: tuple[Path, dict[str, Any], str]) -> None:
    _, text = train(group[0], "--seeds", "3", "--resume", "auto", "--lr", "0.002", code=2)
    assert "the run there is finished, with lr 0.001 instead of 0.002" in text


def test_compare_prints_the_verdict_and_writes_the_page(
    group: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    train(other, "--seeds", "3", "--lr", "0.000001")
    page = tmp_path / "page.html"
    done = forks().run(["compare", str(group[0]), str(other), "--html", str(page), "--json"], tmp_path, 60)
    assert done.returncode == 0, done.stderr
    (text,) = done.stdout.splitlines()
    values = json.loads(text)
    assert {"difference", "ci95", "p", "probability_better", "verdict"} <= values.keys()
    assert (values["verdict"], values["is_paired"], values["configuration"]) == ("worse", True, {"lr": [0.001, 1e-06]})
    assert values["ci95"][0] < values["difference"] < values["ci95"][1] < 0
    assert "is worse than" in done.stderr
    assert page.read_text().count("&#34;colour&#34;") == 12  # a line for each run, in two charts


def test_a_group_on_two_processes_trains_each_seed_once(tmp_path: Path) -> None:
    values, _ = train(tmp_path, "--seeds", "2", "--processes", "2", "--cpu")
    hashes = [run["weights_sha256"] for run in values["runs"]]
    kept, text = train(tmp_path, "--seeds", "2", "--processes", "2", "--cpu", "--resume", "auto")
    assert [run["weights_sha256"] for run in kept["runs"]] == hashes
    assert len(set(hashes)) == 2
    assert text.count("is finished and kept") == 2


def test_a_folder_without_a_run_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run is there; train first"):
        Run.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", "{}\n"),
        ("metrics.jsonl", ""),
        ("step_losses.csv", "a\n1,2\n"),
        ("step_losses.csv", "a\n1,2,x"),
    ],
)
def test_damaged_figures_are_one_clear_line(
    group: tuple[Path, dict[str, Any], str], tmp_path: Path, name: str, content: str
) -> None:
    for path in (group[0] / "seed-0").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="not a whole run"):
        Run.load(tmp_path)
