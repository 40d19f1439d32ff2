"""The benchmark measures real processes, in turn."""

import dataclasses
import json

import pytest

from mnist_accel import TrainConfig
from mnist_accel.checks import bench
from mnist_accel.checks.bench import Measured, candidates, machine_facts, run_bench
from mnist_accel.checks.bench_worker import Candidate
from mnist_accel.commands.bench import bench as command
from mnist_accel.errors import LaunchError
from mnist_accel.hardware.cores import available_cores
from tests.conftest import Run

FACTS = {"flop_per_image": 1e6, "matrix_flop_per_second": {"no": 1e9, "bf16": 1e9}}
KINDS = {"ours", "bare loop", "plain script"}


def short(candidate: Candidate) -> Candidate:
    return dataclasses.replace(candidate, steps=3, batch_size=16)


def measure(compared: list[Candidate], rounds: int = 2) -> list[Measured]:
    return list(run_bench(compared, rounds, FACTS))


def test_every_kind_of_candidate_is_measured_in_turn_with_the_default_and_a_failing_one_is_reported() -> None:
    kinds = {(one.kind, one.processes): short(one) for one in candidates(TrainConfig(cpu=True))}
    default, *others = kinds.values()
    refused = dataclasses.replace(default, title="refused", recipe="no-such-recipe")
    compared = [default, refused, *others]
    found = measure(compared, rounds=1)
    assert [measured.candidate for measured in found] == compared
    assert "no-such-recipe" in found.pop(1).failure
    for measured in found:
        assert not measured.failure
        assert measured.images_per_second > 0
        assert len(measured.ratios) == 1
        assert measured.peak_share == pytest.approx(measured.images_per_second / 1e3)
    json.dumps([dataclasses.asdict(measured) for measured in found], allow_nan=False)


def test_the_candidates_differ_in_precision_processes_speedups_and_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "choose_precision", lambda *_: ("bf16", "for this test"))
    found = candidates(TrainConfig(cpu=True))
    assert {candidate.mixed_precision for candidate in found if candidate.kind == "ours"} == {"bf16", "no"}
    assert {candidate.kind for candidate in found} == KINDS
    assert {candidate.speedups for candidate in found} == {True, False}
    assert {candidate.processes for candidate in found} == {1, min(2, available_cores())}
    assert len({candidate.title for candidate in found}) == len(found)


def test_a_failing_default_is_an_error_with_the_reason() -> None:
    default = dataclasses.replace(candidates(TrainConfig(cpu=True))[0], recipe="no-such-recipe")
    with pytest.raises(LaunchError, match="no-such-recipe"):
        measure([default])


def test_the_operations_of_a_training_image_are_counted() -> None:
    facts = machine_facts("cnn", candidates(TrainConfig(cpu=True)))
    assert facts["flop_per_image"] == pytest.approx(61.0e6, rel=0.01)  # forward and backward
    assert facts["matrix_flop_per_second"]["no"] > 0


def test_the_command_prints_results_and_failures_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    default, *others = candidates(TrainConfig(cpu=True))
    results = [
        Measured(default, 1234.0, 0.5, [0.9, 1.0, 1.1]),
        Measured(others[0], failure="ConfigError: no such recipe"),
    ]
    monkeypatch.setattr(bench, "run_bench", lambda *_: iter(results))
    assert command(rounds=1, cpu=True) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split("  ")[0] == default.title
    assert "1,234 images/s, 50% of the peak, 1.00 × the default (0.90 to 1.10)" in first
    assert second.startswith(others[0].title)
    assert second.endswith("failed: ConfigError: no such recipe")


def test_mistakes_are_refused_before_any_work(run: Run) -> None:
    for arguments, text in ((("--recipe", "sped"), "did you mean"), (("--rounds", 0), "rounds")):
        done = run("bench", *arguments)
        assert done.returncode == 2
        assert text in done.stderr
