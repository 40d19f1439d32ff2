"""The benchmark measures real processes, in turn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mnist_accel import TrainConfig
from mnist_accel.checks.bench import FORMATS, KINDS, Candidate, Measured, candidates, default_candidate, run_bench
from mnist_accel.errors import LaunchError
from mnist_accel.hardware.cores import available_cores
from mnist_accel.reports.plots import speeds
from tests.conftest import Run


def test_ways_are_measured_in_turn_with_parts_that_make_up_a_step(tmp_path: Path) -> None:
    default = dataclasses.replace(default_candidate(TrainConfig(cpu=True, output_dir=tmp_path)), steps=4)
    others = [dataclasses.replace(default, kind=kind) for kind in KINDS[1:]]
    if available_cores() > 1:
        others.append(dataclasses.replace(default, processes=2))
    heard: list[Measured] = []
    found, facts = run_bench(default, others, 2, heard.append)
    assert heard == found
    assert [measured.candidate for measured in found] == [default, *others]
    assert facts["flop_per_image"] == pytest.approx(61.0e6, rel=0.01)  # of the network `cnn`, forward and backward
    for measured in found:
        assert measured.images_per_second > 0
        assert measured.ratio_lowest <= measured.ratio <= measured.ratio_highest
        if measured.candidate.kind == "ours":
            assert {"data", "forward", "backward", "optimizer", "rest", "whole"} <= set(measured.parts)
            assert ("communication" in measured.parts) == (measured.candidate.processes > 1)
    json.dumps([measured.as_json() for measured in found], allow_nan=False)
    assert speeds(found, "here").startswith(b"\x89PNG")


def test_every_precision_memory_format_and_kind_is_among_the_ways() -> None:
    ways = candidates(Candidate("ours", "seed", "cnn", 128, "bf16", FORMATS[0], cpu=True))
    ours = {(way.mixed_precision, way.memory_format) for way in ways if way.kind == "ours" and way.processes == 1}
    assert ours == {(precision, memory) for precision in ("bf16", "no") for memory in FORMATS} - {("bf16", FORMATS[0])}
    assert not [way for way in ways if way.compile and way.memory_format == FORMATS[0]]
    assert {way.kind for way in ways} == set(KINDS)
    assert len(ways) == len(set(ways))


def test_a_way_that_cannot_be_gone_is_an_error_that_names_it() -> None:
    with pytest.raises(LaunchError, match=r"bf16, channels_last.*unknown"):
        run_bench(Candidate("ours", "no-such-recipe", "cnn", 128, "bf16", cpu=True), [], 1, lambda _: None)


def test_mistakes_are_refused_before_any_work(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, text in (
        (("--recipe", "sped"), "did you mean"),
        (("--rounds", 0), "rounds"),
        (("--output-dir", "file"), "not a folder"),
    ):
        done = run("bench", *arguments)
        assert done.returncode == 2
        assert text in done.stderr
