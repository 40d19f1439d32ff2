"""The documents tell the truth about names: options, files, exit codes."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from mnist_accel import errors
from mnist_accel.cli import app
from mnist_accel.config.settings import TrainConfig, option_name, settings
from mnist_accel.training import train as training

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_every_option_and_no_other() -> None:
    known = {option_name(name) for name, known in settings(TrainConfig).items() if known.on_command_line}
    commands = get_command(app).commands.values()  # type: ignore[attr-defined]
    known_elsewhere = {option for command in commands for known in command.params for option in known.opts}
    assert {option for option in known if option not in README} == set()
    ours = {"--help", "--version", "--install-completion", "--show-completion"}
    launchers = {
        "--nproc-per-node",
        "--nnodes",
        "--node-rank",
        "--master-addr",
        "--master-port",
        "--config_file",
        "--max-restarts",
    }
    others = {"--num_processes", "--max-restarts", "--torch-backend"}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", README))
    assert mentioned <= known | known_elsewhere | ours | launchers | others


def test_the_readme_names_every_result_and_every_module() -> None:
    for name in training.RESULT_FILES:
        assert name in README
    for path in (ROOT / "mnist_accel").glob("[a-z]*.py"):
        assert path.name in README, path.name
    for path in (ROOT / "scripts").glob("[a-z]*.py"):
        assert path.name in README, path.name


def test_the_readme_names_every_exit_code() -> None:
    text = README[README.index("Exit codes:") :].split("\n\n")[0]
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"(?<![\w.])\d+(?=\s\w)", text)} >= codes


def test_the_two_commands_are_those_that_ci_runs() -> None:
    test_command = 'pip install -e ".[test]" && pytest'
    assert f"    {test_command}\n" in README
    assert "    pip install -e . && mnist-accel train\n" in README
    assert test_command.replace("install", "install --quiet") in (ROOT / ".ci" / "run").read_text()
