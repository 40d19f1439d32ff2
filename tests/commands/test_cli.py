from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mnist_accel.config.settings import EvaluateConfig, TrainConfig, option_name, settings
from tests.conftest import Run

SMALL = ("train", "--dataset", "mnist-5k", "--epochs", 1, "--train-samples", 300)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("train", "--help"),
        ("evaluate", "--help"),
        ("predict", "--help"),
        ("--version",),
        ("train", "--epochs", "0"),
        ("train", "--dataset", "mnsit"),
        ("train", "--no-such-option"),
        ("evaluate", "--weights", "missing.pth"),
        ("predict", "picture.png", "--top-k", "0"),
        ("export", "--help"),
        ("export", "--format", "onnx", "--weights", "missing.pth"),
        ("inspect", "missing.pth"),
    ],
)
def test_help_and_argument_errors_never_import_torch(arguments: tuple[str, ...], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from mnist_accel.cli import main\n"
        "try: main()\n"
        "finally:\n"
        "    heavy = {'torch', 'accelerate', 'torchvision', 'matplotlib', 'numpy', 'scipy', 'PIL'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "AssertionError" not in done.stderr
    assert done.returncode == (0 if arguments[-1].startswith("--") and "no-such" not in arguments[-1] else 2)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ex", ["export"]),
        ("train --rec", ["--recipe"]),
        ("train --recipe s", ["seed"]),
        ("train --dataset m", ["mnist", "mnist-5k"]),
        ("export --format s", ["safetensors"]),
        ("evaluate --weights x", []),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_options_and_their_values_without_torch(shell: str, typed: str, expected: list[str]) -> None:
    program = (
        "import sys\n"
        "sys.argv = ['mnist-accel']\n"
        "from mnist_accel.cli import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    words = f"mnist-accel {typed}"
    asked = {"_MNIST_ACCEL_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    asked |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_TYPER_COMPLETE_ARGS": words}
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert "AssertionError" not in done.stderr
    offered = re.findall(r'(?:^|\()"([^"]+)"' if shell == "zsh" else r"^([\w-]+)", done.stdout, re.MULTILINE)
    assert [word for word in offered if word in expected] == expected
    assert all(word.startswith(typed.split()[-1]) for word in offered if word != "_files")


@pytest.mark.parametrize("command", ["train", "evaluate", "export", "inspect", "selftest", "doctor"])
def test_every_help_has_examples(run: Run, command: str) -> None:
    assert f"For example:\n\n    mnist-accel {command}" in run(command, "--help").stdout


def test_help_takes_less_than_half_a_second(run: Run) -> None:
    def seconds() -> float:
        began = time.perf_counter()
        run("--help")
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize(("command", "config"), [("train", TrainConfig), ("evaluate", EvaluateConfig)])
def test_help_names_every_setting_with_its_meaning(
    run: Run, command: str, config: type[TrainConfig | EvaluateConfig]
) -> None:
    text = "".join(run(command, "--help").stdout.split())
    for name, known in settings(config).items():
        assert (option_name(name) in text) == known.on_command_line
        assert not known.on_command_line or "".join(known.meaning.split()) in text


def test_all_problems_of_a_command_line_are_reported_together(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(
        *("train", "--dataset", "mnsit", "--model", "cn", "--recipe", "sed", "--epochs", "x", "--lr", "-1"),
        *("--batch-size", "0", "--mixed-precision", "fp16", "--cpu", "--output-dir", "file/below"),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 8
    assert all(line.startswith("mnist-accel: error: --") for line in lines)


def test_json_is_the_last_line_of_stdout_and_people_read_stderr(run: Run, tmp_path: Path) -> None:
    done = run(*SMALL, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == [
        *("dataset", "train_samples", "test_samples", "model", "recipe", "epochs", "steps", "world_size", "device"),
        *("mixed_precision", "threads", "batch_size", "train_loss", "train_accuracy", "test_loss", "test_accuracy"),
        *("train_seconds", "images_per_second", "wall_seconds", "output_dir", "weights_sha256"),
    ]
    for expected in ("594,922 parameters", "running average", "mnist_cnn_model.pth"):
        assert expected in done.stderr
    assert "\x1b" not in done.stderr

    done = run("evaluate", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == [
        *("dataset", "samples", "correct", "accuracy", "accuracy_ci95", "loss", "per_class", "confusion_matrix")
    ]
    assert "95% interval" in done.stderr
    assert {"confusion_matrix.png", "mistakes.png"} <= {path.name for path in tmp_path.iterdir()}


def test_quiet_prints_nothing_for_people(run: Run) -> None:
    done = run(*SMALL, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_fall_back_is_said_even_when_quiet(run: Run) -> None:
    """With a proxy that refuses, no network can be reached, wherever the test runs."""
    done = run(
        "train", "--epochs", 1, "--quiet", "--json", http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9"
    )
    assert done.returncode == 0, done.stderr
    assert "NOTICE: MNIST cannot be had" in done.stderr
    assert json.loads(done.stdout)["dataset"] == "mnist-5k"


def test_a_missed_target_is_exit_code_3_and_keeps_the_results(run: Run, tmp_path: Path) -> None:
    done = run(*SMALL, "--target-accuracy", "0.9999", "--quiet")
    assert done.returncode == 3
    assert "below the target 0.9999" in done.stderr
    assert (tmp_path / "mnist_cnn_model.pth").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "cut short"), (b"PK\x03\x04rubbish", "cut short"), (b"x" * 9999, "not of torch")],
)
def test_bad_weights_are_one_line_and_code_2(run: Run, tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "bad.pth").write_bytes(content)
    done = run("evaluate", "--weights", "bad.pth", "--dataset", "mnist-5k")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr
    debugged = run("evaluate", "--weights", "bad.pth", "--dataset", "mnist-5k", "--debug")
    assert debugged.returncode == 2
    assert "Traceback" in debugged.stderr


def test_a_read_only_output_folder_is_found_before_training(run: Run) -> None:
    done = run(*SMALL, "--output-dir", "/proc/self/out")
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert "step" not in done.stderr
