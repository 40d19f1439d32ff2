"""The commands and the Python blocks of the README and of docs/ run; quotations of the source are in the source.

Commands run one after another in a folder of their own for each document, with fewer samples: see SMALLER.
"""

import dataclasses
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from sybil import Sybil

from mnist_accel.cli import main
from mnist_accel.data import named_sets
from mnist_accel.data.digits import DataSet, Digits
from tests.conftest import SMALL_MNIST, clean_environment
from tests.docs.blocks import PROGRAMS, ROOT, parser

SMALLER = {"--train-samples": "200", "--epochs": "1", "--seeds": "2"}
"""Options of `train` that replace those of the document. `--seeds` only where the document has it."""
TEST_SAMPLES = 500
"""Of MNIST, in commands that run in this process."""
DOCUMENTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@functools.cache
def mnist() -> DataSet:
    """MNIST with TEST_SAMPLES test samples. It is read once for all documents."""
    whole = named_sets.load("mnist", Path(), print)
    test = Digits(whole.test.images[:TEST_SAMPLES], whole.test.labels[:TEST_SAMPLES])
    return dataclasses.replace(whole, test=test)


class Shell:
    """Runs the commands of one document in `folder`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.exported: dict[str, str] = {}

    def run(self, lines: list[str]) -> None:
        for line in lines:
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), "&&"]:
                if word != "&&":
                    words.append(word)
                elif words:
                    self.command(smaller(words))
                    words = []

    def command(self, words: list[str]) -> None:
        program, *arguments = words
        if program == "export":
            self.exported |= dict(pair.split("=") for pair in arguments)
        elif program == "pip":
            assert set(re.findall(r"\[(\w+)\]", " ".join(arguments))) <= EXTRAS.keys(), words
        elif program == "mnist-accel" and "--processes" not in arguments:
            self.in_this_process(arguments)
        else:
            self.in_processes(words)

    def in_this_process(self, arguments: list[str]) -> None:
        with self.monkeypatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["mnist-accel", *arguments])
            with pytest.raises(SystemExit) as end:
                main()
        assert end.value.code in ({0, 1} if arguments[0] == "doctor" else {0}), arguments  # 1: a warning

    def in_processes(self, words: list[str]) -> None:
        if "train" in words and "--trace" not in words:  # traces are compared with those of commands in this process
            words = [*words, "--dataset", SMALL_MNIST]
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = clean_environment(PATH=search, PYTHONPATH=str(ROOT), **self.exported)
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"


def smaller(words: list[str]) -> list[str]:
    """A command with the small values of SMALLER, if it trains."""
    if "train" not in words:
        return words
    for option, value in SMALLER.items():
        if option in words:
            words[words.index(option) + 1] = value
        elif option != "--seeds":
            words += [option, value]
    return words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the commands of the documents expect: pictures of digits, and the files of the checkout that they name."""
    for name in ("photo.jpg", "scans/1.png", "scans/2.jpg", "seven.png"):
        picture = Image.new("L", (200, 200), 230)
        ImageDraw.Draw(picture).line([(60, 50), (140, 50), (95, 150)], fill=30, width=12, joint="curve")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name)
    shutil.copy(ROOT / "accelerate_config.yaml", tmp_path)
    for name in ("docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.stem for path in DOCUMENTS])
def test_commands_and_python_blocks_of_a_document_run(
    document: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.syspath_prepend(str(folder))
    small, load = mnist(), named_sets.load
    monkeypatch.setattr(named_sets, "load", lambda name, *rest: small if name == "mnist" else load(name, *rest))
    for example in Sybil([parser(Shell(folder, monkeypatch).run, folder)]).parse(document).examples():
        example.evaluate()


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.stem for path in DOCUMENTS])
def test_no_command_of_a_document_is_overlooked(document: Path) -> None:
    commands = r"^ {4}(?:\S+=\S+ )*(?:mnist-accel (?!error)|torchrun |accelerate launch |python3? |pip )"
    text = document.read_text(encoding="utf-8")
    for block in re.findall(r"(?:^|\n\n)((?: {4}[^\n]*\n)+)", re.sub(r"(?s)```.*?```", "", text)):
        if re.search(commands, block, re.MULTILINE):
            assert block.split()[0] in PROGRAMS, block
