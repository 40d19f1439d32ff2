"""A short version of scripts/planted_faults.py."""

import importlib
import json
from operator import attrgetter
from pathlib import Path

import pytest

from scripts.faults import FAULTS, HEALTHY
from scripts.planted_faults import main


@pytest.mark.parametrize("fault", [*FAULTS, *HEALTHY])
def test_what_a_fault_changes_is_in_the_package(fault: str) -> None:
    for module, attribute, _ in HEALTHY[fault] if fault in HEALTHY else (FAULTS[fault],):
        assert attrgetter(attribute)(importlib.import_module(f"mnist_accel.{module}"))


def test_a_planted_fault_is_found_and_finished_trials_are_not_repeated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "trials.jsonl"
    for _ in range(2):
        main(path, trials=1, faults=["last batch dropped"])
        assert "| last batch dropped | 1 of 1 | arithmetic 1 |" in capsys.readouterr().out
    (line,) = path.read_text().splitlines()
    assert json.loads(line)["section"] == "arithmetic"
