"""The parts of docs/ that scripts/generated_docs.py makes are up to date; every name that they promise is there."""

import contextlib
import io
from pathlib import Path

import pytest
from cogapp import Cog

import mnist_accel
from mnist_accel.cli import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["options.md", "api.md"])
def test_the_generated_part_of_a_document_is_up_to_date(name: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = Cog().main(["cog", "-I", str(ROOT / "scripts"), "--check", str(ROOT / "docs" / name)])
    assert code == 0, f"run just docs: {said.getvalue()}"


def test_the_help_of_every_command_and_every_public_name_is_in_a_document() -> None:
    options, api = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("options.md", "api.md"))
    for command in COMMANDS:
        assert f"Usage: mnist-accel {command.__name__} " in options
    for name in mnist_accel.__all__:
        assert f"\n## `{name}`\n" in api
