"""Real processes: the same result on any number of them, one voice, one set of files."""

import functools
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_accel.api import TRAIN_FILES
from mnist_accel.data.batches import epoch_order
from tests.conftest import SMALL_MNIST, Run, clean_environment, small_mnist, torchrun

WORKER = Path(__file__).parents[1] / "workers" / "sameness.py"
WORLD_SIZES = (1, 2, 3)
CURVES = ("float64", "float64 accumulated", "float64 distorted", "float32")


@functools.cache
def outcome(world_size: int) -> dict[str, Any]:
    """What `workers/sameness.py` computed on so many processes."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "outcome.json"
        launcher = torchrun(world_size) if world_size > 1 else ()
        command = [sys.executable, *launcher, str(WORKER), str(output), small_mnist(test=250)]
        environment = clean_environment(OMP_NUM_THREADS="1", PYTHONPATH=str(WORKER.parents[2]))
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(output.read_text())
        return found


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("curve", CURVES)
def test_each_sample_is_seen_once_and_in_the_same_global_batches(curve: str, world_size: int) -> None:
    found = outcome(world_size)[curve]
    assert found["world_size"] == world_size
    assert found["order"] == epoch_order(len(found["order"]), seed=0, epoch=0).tolist()


@pytest.mark.parametrize("world_size", WORLD_SIZES[1:])
@pytest.mark.parametrize("curve", ["float64", "float64 accumulated", "float64 distorted"])
def test_float64_losses_are_those_of_one_process(curve: str, world_size: int) -> None:
    losses = outcome(world_size)[curve]["losses"]
    assert len(losses) == 8
    expected = outcome(1)[curve.removesuffix(" accumulated")]["losses"]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


@pytest.mark.parametrize("world_size", WORLD_SIZES[1:])
def test_float32_gradients_and_losses_are_those_of_one_process_up_to_rounding(world_size: int) -> None:
    one, several = outcome(1)["float32"], outcome(world_size)["float32"]
    expected, found = np.array(one["gradients"]), np.array(several["gradients"])
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=2e-3)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_evaluation_counts_each_sample_once_at_any_batch_size(world_size: int) -> None:
    expected = outcome(1)["evaluations"][0]
    assert expected["samples"] == 250
    assert outcome(world_size)["evaluations"] == [expected] * 3


SMALL = ("train", "--dataset", SMALL_MNIST, "--epochs", 1, "--train-samples", 600)


def check_one_voice(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    """Two ranks trained, one spoke, one set of files is there; the result."""
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(": test accuracy") == 1
    assert done.stderr.count("594,922 parameters") == 1
    assert "Warning" not in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    result: dict[str, Any] = json.loads(lines[0])
    assert (result["world_size"], result["threads"]) == (2, 1)
    assert {path.name for path in folder.iterdir()} == set(TRAIN_FILES)
    record = json.loads((folder / "mnist_cnn_model.json").read_text())
    assert record["world_size"] == 2
    return result


def test_all_processes_test_with_the_batch_norm_statistics_that_are_saved(run: Run) -> None:
    small = ("--dataset", SMALL_MNIST, "--mixed-precision", "no", "--threads", 1, "--json")
    trained = run("train", "--recipe", "accurate", "--epochs", 1, "--train-samples", 400, "--processes", 2, *small)
    assert trained.returncode == 0, trained.stderr
    saved = run("evaluate", *small)
    assert saved.returncode == 0, saved.stderr
    assert json.loads(saved.stdout)["loss"] == pytest.approx(json.loads(trained.stdout)["test_loss"], rel=1e-5)


def test_the_option_processes_and_torchrun_are_really_two_ranks_with_one_voice_and_one_result(
    run: Run, tmp_path: Path
) -> None:
    done = run(*SMALL, "--processes", 2, "--threads", 1, "--json", "--output-dir", "a")
    result = check_one_voice(done, tmp_path / "a")
    other = run(*SMALL, "--threads", 1, "--json", "--output-dir", "b", launcher=torchrun(2))
    assert check_one_voice(other, tmp_path / "b")["weights_sha256"] == result["weights_sha256"]
    evaluated = run(
        "evaluate", "--weights", "a/mnist_cnn_model.pth", "--processes", 2, "--threads", 1, "--json", "--cpu"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--validation-samples", 100_000), 2, "give at most 4000"),
        (("--target-accuracy", 1.0), 3, "below the target"),
        (("--output-dir", "/proc/here"), 2, "cannot write"),
    ],
)
def test_all_processes_leave_with_one_code_and_one_message(
    run: Run, arguments: tuple[object, ...], code: int, message: str
) -> None:
    done = run(*SMALL, "--processes", 2, "--threads", 1, "--quiet", *arguments)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("mnist-accel: error:") == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_processes_that_were_started_with_other_settings_refuse_to_train(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in (0, 1):
        launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = clean_environment(
            MASTER_ADDR="127.0.0.1", **{name: str(value) for name, value in launched.items()}
        )
        command = [sys.executable, "-m", "mnist_accel", *map(str, SMALL), "--threads", "1", "--lr", f"0.00{rank + 1}"]
        running.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [2, 2]
    assert "not started alike: lr is 0.001 and 0.002" in said[0]
    assert said[1] == ""


def test_accelerate_launch_and_the_config_file_change_neither_precision_nor_threads_nor_weights(run: Run) -> None:
    plain = run(*SMALL, "--json", "--output-dir", "plain", launcher=("-X", "utf8"))  # not a fork, which has one thread
    first = json.loads(plain.stdout)
    file = Path(__file__).parents[2] / "accelerate_config.yaml"
    for options in ((), ("--config_file", str(file))):
        launcher = ("-m", "accelerate.commands.launch", *options)
        launched = run(*SMALL, "--json", "--output-dir", "launched", launcher=launcher)
        assert launched.returncode == 0, launched.stderr
        second = json.loads(launched.stdout)
        for key in ("mixed_precision", "threads", "weights_sha256", "device", "world_size"):
            assert first[key] == second[key], key
    assert "had defaults used instead" not in launched.stderr


def test_a_notebook_launcher_returns_a_result(tmp_path: Path) -> None:
    program = (
        "from accelerate import notebook_launcher\n"
        "from mnist_accel import TrainConfig, train\n"
        "def cell():\n"
        f"    result = train(TrainConfig(dataset={SMALL_MNIST!r}, epochs=1, train_samples=500))\n"
        "    print(f'{result.steps} steps, accuracy {result.test_accuracy > 0.1}')\n"
        "notebook_launcher(cell, num_processes=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "4 steps, accuracy True" in done.stdout
    assert (tmp_path / "mnist_cnn_model.pth").exists()
