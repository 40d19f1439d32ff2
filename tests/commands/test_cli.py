import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mnist_accel.commands.common import guarded
from mnist_accel.config.settings import EvaluateConfig, TrainConfig, option_name, settings
from mnist_accel.errors import OutputError
from mnist_accel.files.exported import FORMATS
from tests.conftest import SMALL_MNIST, Run

SMALL = ("train", "--dataset", SMALL_MNIST, "--epochs", 1, "--train-samples", 300, "--threads", 1)


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
        ("recipes", "--json"),
        ("export", "--help"),
        ("export", "--format", "onnx", "--weights", "missing.pth"),
        ("inspect", "missing.pth"),
        ("data", "mnsit"),
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


def test_an_interrupt_while_the_program_is_still_imported_is_one_line() -> None:
    program = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "runpy.run_module('mnist_accel', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "mnist-accel: stopped by Ctrl-C\n")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("ex", ["export"]),
        ("train --rec", ["--recipe"]),
        ("train --recipe s", ["speedrun"]),
        ("train --dataset m", ["mnist"]),
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
    assert all(word.startswith(typed.rsplit(maxsplit=1)[-1]) for word in offered if word != "_files")


@pytest.mark.parametrize("command", ["train", "evaluate", "data", "export", "inspect", "certify", "doctor"])
def test_every_help_has_examples(run: Run, command: str) -> None:
    assert f"For example:\n    mnist-accel {command}" in run(command, "--help").stdout


def test_help_takes_less_than_half_a_second_of_the_processor(run: Run) -> None:
    def seconds() -> float:
        before = os.times()
        run("--help", launcher=("-X", "utf8"))  # a launcher: not a fork
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize(("command", "config"), [("train", TrainConfig), ("evaluate", EvaluateConfig)])
def test_help_names_every_setting_with_its_meaning(
    run: Run, command: str, config: type[TrainConfig | EvaluateConfig]
) -> None:
    words = run(command, "--help").stdout.split()
    text = "".join(words)
    for name, known in settings(config).items():
        assert (option_name(name) in words) == known.on_command_line
        assert not known.on_command_line or "".join(known.meaning.split()) in text


def test_the_help_of_export_names_every_format(run: Run) -> None:
    assert "|".join(FORMATS) in run("export", "--help").stdout


def test_all_problems_of_a_command_line_are_reported_together(run: Run) -> None:
    done = run(
        *("train", "--dataset", "mnsit", "--model", "cn", "--recipe", "sed", "--epochs", "x", "--lr", "-1"),
        *("--batch-size", "0", "--mixed-precision", "fp16", "--cpu"),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 7
    assert all(line.startswith("mnist-accel: error: --") for line in lines)


def test_json_is_the_last_line_of_stdout_and_people_read_stderr(run: Run, tmp_path: Path) -> None:
    done = run(*SMALL, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == [
        *("model", "recipe", "dataset", "train_samples", "validation_samples", "test_samples", "parameters", "epochs"),
        *("steps_per_epoch", "batch_size", "world_size", "exchange", "device", "device_name", "cpu", "threads"),
        *("mixed_precision", "precision_reason", "output_dir", "steps", "train_loss", "train_accuracy", "test_loss"),
        *("test_accuracy", "train_seconds", "images_per_second", "wall_seconds", "weights_sha256", "chosen_epoch"),
        "time_spent",
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
    assert "95% interval" in run("evaluate").stdout
    assert {"confusion_matrix.png", "mistakes.png"} <= {path.name for path in tmp_path.iterdir()}


def test_quiet_prints_nothing_for_people(run: Run) -> None:
    done = run(*SMALL, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
    done = run("evaluate", "--weights", "bad.pth", "--dataset", "mnist")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert expected in done.stderr
    debugged = run("evaluate", "--weights", "bad.pth", "--dataset", "mnist", "--debug")
    assert debugged.returncode == 2
    assert "Traceback" in debugged.stderr


@pytest.mark.parametrize("folder", ["/proc/self/out", "file/below", "x" * 300])
def test_an_output_folder_that_cannot_be_written_is_found_before_training(
    run: Run, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "file").write_text("")
    done = run(*SMALL, "--output-dir", folder)
    assert done.returncode == 2
    assert "cannot write" in done.stderr
    assert "step" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("train", "--no-such-option"), "no such option; see mnist-accel train --help"),
        (("train", "--device", "cuda"), "--cpu turns that off"),
        (("train", "--gpu"), "--cpu turns that off"),
        (("train", "--learning-rate", "1"), "give --lr"),
        (("train", "--dropout", "0.3"), "write dropout = … into a .toml file"),
        (("train", "--epoch", "3"), "did you mean --epochs"),
        (("train", "--resume"), "--resume auto"),
        (("train", "--resume", "--epochs", "2"), "--resume auto"),
        (("test",), "mnist-accel evaluate"),
        (("help",), "mnist-accel --help"),
        (("predct",), "did you mean predict"),
        (("predict",), "predict: IMAGE is missing; for example: mnist-accel predict photo.jpg"),
        (("export",), "--format: is missing; give one of onnx|safetensors|torch-export"),
        (("export", "--format", "onxx"), "--format onxx: 'onxx' is not one of 'onnx', 'safetensors', 'torch-export'"),
        (("predict", "x.png"), "mnist_cnn_model.pth: no such file; train first (mnist-accel train)"),
        (("export", "--format", "onnx"), "mnist_cnn_model.pth: no such file; train first (mnist-accel train)"),
        (("predict", "x.png", "--top-k", "many"), "--top-k many: it must be a valid integer"),
        (("train", "--seeds", "0"), "--seeds 0: it must be greater than or equal to 1; see mnist-accel train --help"),
        (("train", "--epochs"), "--epochs: needs a value; see mnist-accel train --help"),
        (("train", "--json=yes"), "--json: takes no value; see mnist-accel train --help"),
        (("train", "extra"), "extra: unexpected argument; see mnist-accel train --help"),
        (("evaluate", "--weights", "\x1b[31m" + "x" * 5000), "…"),
    ],
)
def test_a_usage_error_is_one_short_line_that_says_what_to_do(
    run: Run, arguments: tuple[str, ...], expected: str
) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mnist-accel: error: ")
    assert expected in line
    assert "\x1b" not in line
    assert len(line) < 1100


def test_without_arguments_the_help_is_shown(run: Run) -> None:
    done = run()
    assert done.returncode == 0
    assert "Usage: mnist-accel" in done.stdout


@pytest.mark.parametrize("printer", ["print", "Console().print"])
@pytest.mark.parametrize("lines", [1, 100_000])  # the error comes at the last flush, or in between
def test_a_reader_that_closes_the_pipe_is_no_error(printer: str, lines: int) -> None:
    program = (
        "from rich.console import Console\n"
        "from mnist_accel.commands.common import guarded, leave\n"
        "def work():\n"
        f"    for number in range({lines}): {printer}(number)\n"
        "    return 0\n"
        "leave(guarded(work, debug=False))\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "mnist-accel: stopped by Ctrl-C; files of earlier runs are unchanged"),
        (
            ValueError("odd\x1b[31m"),
            70,
            "mnist-accel: error: unexpected error: ValueError: odd\ufffd[31m; run again with",
        ),
        (OutputError("full", "make room"), 1, "mnist-accel: error: full; make room"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert guarded(work, debug=False) == code
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.startswith(line)
    assert written.err.count("\n") == 1


def test_more_processes_than_cores_are_refused_without_gpus(run: Run) -> None:
    done = run("train", "--cpu", "--processes", 1000, "--batch-size", 1000)
    assert done.returncode == 2
    assert "--processes 1000: this machine has" in done.stderr
