"""`train --trace` and `diff`: planted differences are named, and rounding is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_accel import TrainConfig, train
from mnist_accel.checks.trace_diff import compare, diff_traces
from mnist_accel.errors import UserError
from mnist_accel.training import trace
from scripts.trace_differences import KINDS, PLANTS, STEP, place, traced, traced_by_two
from tests.conftest import SMALL_MNIST, Run

STEPS = STEP + 1
SMALL = {"dataset": SMALL_MNIST}
BY_ONE = [name for name, plant in PLANTS.items() if plant.processes == 1]
BY_TWO = [name for name in PLANTS if name not in BY_ONE]
SEEN_THROUGH_ROUNDING = {"a layer's gradient zeroed", "GELU for ReLU", "a bit flipped in a weight", "labels permuted"}
"""Found also against a run that has drifted by rounding for seven steps."""
FLOAT64 = {"mixed_precision": "no", "dtype": "float64"}
NO_DROPOUT = {
    kind: settings | {"dropout": 0, "batch_size": 32}
    for kind, settings in {"same": KINDS["same"], "bf16": KINDS["bf16"], "float64": FLOAT64}.items()
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Healthy traces of one process, and all traces of two."""
    path = tmp_path_factory.mktemp("traces")
    for kind in ("same", "other kernels"):
        traced(path / f"one {kind}", STEPS, **SMALL, **KINDS[kind])
    for kind, settings in NO_DROPOUT.items():
        traced(path / f"one {kind} without dropout", STEPS, **SMALL, **settings)
    runs = {f"two {kind} without dropout": settings for kind, settings in NO_DROPOUT.items()}
    runs |= {"two": KINDS["same"]} | {name: KINDS["same"] | {"plant": name} for name in BY_TWO}
    traced_by_two(path, [{"path": name, "steps": STEPS} | SMALL | settings for name, settings in runs.items()])
    return path


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SEEN_THROUGH_ROUNDING else [pytest.mark.slow]) for name in BY_ONE]
)
def test_a_planted_difference_is_named_with_its_step_and_layer(name: str, folder: Path) -> None:
    traced(folder / name, STEPS, name, **SMALL, **KINDS["same"])
    expected = f"step {STEP}, {PLANTS[name].place}"
    assert place(folder / "one same", folder / name) == expected
    if name in SEEN_THROUGH_ROUNDING:
        assert place(folder / "one other kernels", folder / name) == expected


@pytest.mark.parametrize("name", BY_TWO)
def test_a_planted_difference_between_processes_is_named(name: str, folder: Path) -> None:
    assert place(folder / "two", folder / name) == f"step {STEP}, {PLANTS[name].place}"


@pytest.mark.parametrize("kind", NO_DROPOUT)
def test_one_process_and_two_are_equal_up_to_rounding(kind: str, folder: Path) -> None:
    found = diff_traces(folder / f"one {kind} without dropout", folder / f"two {kind} without dropout")
    assert (found.difference, found.steps) == (None, STEPS)
    assert found.first_bits is not None


def test_precisions_are_equal_up_to_rounding_and_the_tolerance_is_that_of_the_coarser_one(folder: Path) -> None:
    one, other, exact = (folder / f"one {kind} without dropout" for kind in ("same", "bf16", "float64"))
    for first, second in ((one, other), (other, one), (one, exact), (exact, other)):
        assert diff_traces(first, second).difference is None
    logits = [
        next(found for found in compare(trace.read(exact), trace.read(second)) if found.layer == "logits")
        for second in (one, other)
    ]
    assert logits[0].size < 1e-5
    assert logits[1].size > 1e-3
    assert 100 * logits[0].tolerance < logits[1].tolerance


def test_dropout_of_another_number_of_processes_is_named_as_expected(folder: Path) -> None:
    found = diff_traces(folder / "one same", folder / "two")
    assert found.difference is not None
    assert (found.difference.step, found.difference.layer) == (1, "classifier.3")
    assert "expected with another seed, number of processes" in found.lines()[2]
    assert "world_size: 1 and 2" in found.lines()


def test_a_number_that_is_not_finite_is_a_difference_of_the_layer_that_makes_it(folder: Path, tmp_path: Path) -> None:
    header, *steps = (folder / "one same").read_text().splitlines()
    broken = trace.Step.model_validate_json(steps[2])
    for name in ("classifier.1", "classifier.2", "logits"):
        broken.activations[name] = [0] + [float("nan")] * (trace.PROJECTIONS + 1)
    steps[2] = broken.model_dump_json()
    (tmp_path / "broken").write_text("\n".join([header, *steps]))
    found = diff_traces(folder / "one same", tmp_path / "broken").as_json()
    assert (found["equal"], found["step"], found["layer"], found["size"]) == (False, 3, "classifier.1", None)
    assert place(tmp_path / "broken", tmp_path / "broken") == "equal"


def test_a_summary_estimates_the_difference_and_adds_up_over_samples() -> None:
    torch.manual_seed(0)
    values, noise, rows = torch.randn(40, 3, 5, 5), torch.randn(40, 3, 5, 5), trace.signs(40, 2)
    whole = trace.summary(values, rows)
    parts = trace.added(trace.summary(values[:13], rows[:13]), trace.summary(values[13:], rows[13:]))
    np.testing.assert_allclose(parts[1:], whole[1:], rtol=1e-12)
    assert parts[0] == whole[0]
    assert trace.summary(values.to(memory_format=torch.channels_last), rows) == whole
    apart = np.subtract(trace.summary(values + 1e-3 * noise, rows)[2:], whole[2:])
    assert np.sqrt(np.mean(apart**2)) == pytest.approx(1e-3 * noise.norm().item(), rel=0.5)


def test_tracing_changes_no_bit_and_ends_after_its_steps(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "train_samples": 700, "recipe": "accurate", "threads": 1} | SMALL
    plain = train(TrainConfig(output_dir=tmp_path / "a", **settings))
    path = tmp_path / "trace.jsonl"
    watched = train(TrainConfig(output_dir=tmp_path / "b", **settings), trace.Tracer(path, 8))
    assert watched.weights_sha256 == plain.weights_sha256
    header, steps = trace.read(path)
    assert header.facts["world_size"] == 1
    assert [step.step for step in steps] == list(range(1, 9))  # over both epochs of 6 steps
    assert [len(step.samples) for step in steps] == [128, 128, 128, 128, 128, 60, 128, 128]
    losses = [step.loss / len(step.samples) for step in steps]
    np.testing.assert_allclose(losses, watched.step_losses[:8], rtol=1e-6)


def test_steps_that_would_be_replayed_are_traced_like_called_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU: the optimizer is prepared for recorded steps, and recording one would fail."""
    settings: dict[str, Any] = {"epochs": 1, "train_samples": 700, "threads": 1, "output_dir": tmp_path} | SMALL
    settings["dtype"] = "float64"  # less precision would enlarge the difference
    train(TrainConfig(**settings), trace.Tracer(tmp_path / "called.jsonl", 6))
    monkeypatch.setattr("mnist_accel.training.setup.is_recorded", lambda *_: True)
    train(TrainConfig(**settings), trace.Tracer(tmp_path / "replayed.jsonl", 6))
    (_, called), (_, replayed) = (trace.read(tmp_path / f"{name}.jsonl") for name in ("called", "replayed"))
    assert len(called) == 6
    for one, other in zip(called, replayed, strict=True):
        assert one.gradients.keys() == other.gradients.keys()
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)  # the rate is a float32 there


def test_the_commands_write_and_compare_traces(run: Run, tmp_path: Path) -> None:
    small = ("train", "--dataset", SMALL_MNIST, "--epochs", 1, "--train-samples", 400, "--threads", 1, "--quiet")
    for name, options in (("a", ()), ("b", ("--mixed-precision", "no")), ("c", ("--lr", "0.0015"))):
        done = run(*small, "--trace", f"{name}.jsonl", "--trace-steps", 2, *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    equal = run("diff", "a.jsonl", "b.jsonl", "--json")
    assert (equal.returncode, json.loads(equal.stdout)) == (0, {"equal": True})
    assert "equal up to rounding: 2 steps" in equal.stderr
    other = run("diff", "a.jsonl", "c.jsonl", "--json")
    found = json.loads(other.stdout)
    assert (other.returncode, found["equal"], found["step"], found["layer"]) == (1, False, 1, "learning rate")
    assert found["size"] == pytest.approx(1 / 3)
    assert "lr: 0.001 and 0.0015" in other.stderr
    bad = run("diff", "a.jsonl", "missing.jsonl")
    assert (bad.returncode, bad.stdout, len(bad.stderr.splitlines())) == (2, "", 1)
    (tmp_path / "late.jsonl").write_text((tmp_path / "a.jsonl").read_text().replace('"step":', '"step":9'))
    for name, reason in (("mnist_cnn_model.json", r"not a trace \([^\[]{,80}\)"), ("late.jsonl", "no step in common")):
        with pytest.raises(UserError, match=reason):
            diff_traces(tmp_path / "a.jsonl", tmp_path / name)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--seeds", 2), "cannot be combined, nor with --trace"),
        (("--trace", "/proc/x/y"), "cannot write"),
        (("--trace-steps", 0), "greater than or equal to 1"),
    ],
)
def test_a_trace_that_cannot_be_written_is_refused(run: Run, options: tuple[object, ...], expected: str) -> None:
    done = run("train", "--dataset", SMALL_MNIST, "--trace", "a.jsonl", *options, "--quiet")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert expected in done.stderr
