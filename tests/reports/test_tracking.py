import json
import signal
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_accel import Run
from mnist_accel.errors import UserError
from mnist_accel.reports.tracking import STATE_FILE, Tracking
from tests.conftest import SMALL_MNIST, clean_environment
from tests.reports.examples import LOSSES, facts, record

SMALL = ("--dataset", SMALL_MNIST, "--threads", "1", "--mixed-precision", "no", "--model", "small-cnn")
KILL = """
import os, signal, sys, time
from mnist_accel.training.events import Observers
from mnist_accel.reports import console
original = console.TrainingConsole.epoch_started
def epoch_started(self, epoch, step):
    if epoch == 2 and os.environ.get("RANK", "0") == "0":
        time.sleep(1.5)  # Trackio writes in the background, twice a second
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, epoch, step)
console.TrainingConsole.epoch_started = epoch_started
from mnist_accel.cli import main
main()
"""


HAS_MLFLOW = find_spec("mlflow") is not None
"""It is large; the tests read it back where it is installed."""


def environment(folder: Path) -> dict[str, str]:
    tracking = {"TRACKIO_DIR": str(folder / "trackio"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    return clean_environment(HF_HUB_OFFLINE="1", **tracking)


def train(folder: Path, *program: str, options: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    names = ("tensorboard", "trackio", *(["mlflow"] if HAS_MLFLOW else []))
    track = [word for name in names for word in ("--track", name)]
    command = [sys.executable, *(program or ("-m", "mnist_accel")), "train", *SMALL, "--epochs", "3"]
    return subprocess.run(
        [*command, "--train-samples", "500", "--output-dir", str(folder), "--json", *track, *options],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )


def tensorboard_figures(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator(
        str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}
    )
    accumulator.Reload()
    assert sorted(accumulator.Tags()["images"]) == ["predictions", "training_history"]
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def trackio_figures(folder: Path) -> dict[str, list[tuple[int, float]]]:
    program = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S; "
        "(run,) = S.get_runs('mnist-accel'); print(json.dumps(S.get_logs('mnist-accel', run)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, list[tuple[int, float]]] = {}
    for row in json.loads(done.stdout.splitlines()[-1]):
        for name, value in row.items():
            if name not in ("step", "timestamp"):
                figures.setdefault(name, []).append((row["step"], value))
    return figures


def mlflow_figures(folder: Path) -> dict[str, list[tuple[int, float]]]:
    mlflow = import_module("mlflow")
    client = mlflow.MlflowClient(environment(folder)["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="name = 'mnist-accel'")
    (run,) = client.search_runs([experiment.experiment_id])
    return {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def require_equal(found: dict[str, list[tuple[int, float]]], run: Run) -> None:
    """Check steps exactly, and values as float32 has them."""
    steps = len(run.step_losses) // len(run.history)
    expected = {"step_loss": list(enumerate(run.step_losses, 1))}
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr", "images_per_second"):
        expected[name] = [(epoch.epoch * steps, getattr(epoch, name)) for epoch in run.history]
    expected["final_test_accuracy"] = [(len(run.step_losses), run.test_accuracy)]
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("processes", "is_killed"), [("1", False), ("1", True), pytest.param("2", True, marks=pytest.mark.slow)]
)
def test_trackers_hold_the_figures_of_the_run_once(tmp_path: Path, processes: str, is_killed: bool) -> None:
    options: tuple[str, ...] = ("--cpu", "--processes", processes) if processes != "1" else ()
    if is_killed:
        program = tmp_path / "killed.py"
        program.write_text(KILL)
        if processes == "1":
            assert train(tmp_path, str(program)).returncode == -signal.SIGKILL
        else:
            launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program))
            assert train(tmp_path, *launch, options=("--cpu",)).returncode != 0
        assert (tmp_path / STATE_FILE).exists()
        options += ("--resume", "auto")
    done = train(tmp_path, options=options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert json.loads(done.stdout)["steps"] == 12
    run = Run.load(tmp_path)
    require_equal(tensorboard_figures(tmp_path), run)
    require_equal(trackio_figures(tmp_path), run)
    if HAS_MLFLOW:
        require_equal(mlflow_figures(tmp_path), run)
    assert not (tmp_path / STATE_FILE).exists()


def test_an_unknown_or_missing_tracker_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match="--track tensorbord: unknown; did you mean tensorboard"):
        Tracking(["tensorbord"], print)


def test_a_tracker_that_is_not_installed_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnist_accel.reports.tracking.get_available_trackers", list)
    with pytest.raises(UserError, match="--track comet_ml: it is not installed; pip install comet-ml"):
        Tracking(["comet_ml"], print)


def test_a_failing_tracker_gives_one_notice_and_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        def __init__(self, **options: Any) -> None:
            print("on stdout")

        def start(self) -> None:
            pass

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            pass

        def log(self, values: dict[str, Any], step: int) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("mnist_accel.reports.tracking.LOGGER_TYPE_TO_CLASS", {"tensorboard": Broken})
    notices: list[str] = []
    tracking = Tracking(["tensorboard"], notices.append)
    tracking.run_started(facts(resume="never", output_dir=str(tmp_path)))
    tracking.epoch_finished(record(1), LOSSES)
    tracking.epoch_finished(record(2), LOSSES)
    assert len(notices) == 1
    assert "tensorboard failed (OSError: [Errno 28] No space left on device); the run continues" in notices[0]
    assert capsys.readouterr().out == ""
