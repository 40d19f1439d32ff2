import json
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from mnist_accel.checks import selftest
from mnist_accel.commands.selftest import selftest as command
from mnist_accel.errors import LaunchError
from tests.conftest import Run


def test_a_sound_machine_passes_every_check(run: Run) -> None:
    done = run("selftest", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    assert [check["name"] for check in report["checks"]] == [
        "train and evaluate",
        "kill and resume",
        "one against two processes",
        "evaluation counts",
        "fp32 against chosen precision",
    ]
    assert done.stderr.count("pass") + done.stderr.count("skip") >= 5


def test_progress_is_on_stderr_and_results_with_a_closing_verdict_are_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (
        *("train_and_evaluate", "kill_and_resume", "one_against_two_processes", "evaluation_counts"),
        "fp32_against_chosen_precision",
    ):

        def check(self: selftest.Selftest) -> tuple[bool, str]:
            self.whole = {"device": "cpu"}
            return True, "as expected"

        check.__name__ = name
        monkeypatch.setattr(selftest.Selftest, name, check)
    assert command() == 0
    captured = capsys.readouterr()
    assert "2/5 kill and resume …" in captured.err
    lines = captured.out.splitlines()
    assert len(lines) == 6
    assert lines[1].startswith("pass  kill and resume")
    assert lines[-1] == "All 5 checks passed."


@pytest.mark.parametrize(
    ("check", "spoil"),
    [
        ("train_and_evaluate", lambda result: result | {"accuracy": 0.5}),
        ("kill_and_resume", lambda result: result | {"weights_sha256": "other"}),
        ("one_against_two_processes", lambda result: result | {"train_loss": 1.0 + result["world_size"] * 1e-9}),
        ("evaluation_counts", lambda result: result | {"samples": 9999}),
        ("fp32_against_chosen_precision", lambda result: result | {"test_accuracy": 0.8}),
    ],
)
def test_a_broken_promise_fails_its_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, check: str, spoil: Any
) -> None:
    sound: dict[str, Any] = {
        "test_accuracy": 0.95,
        "accuracy": 0.95,
        "samples": 10_000,
        "correct": 9500,
        "images_per_second": 1.0,
        "mixed_precision": "bf16",
        "device": "cpu",
        "weights_sha256": "same",
        "world_size": 2,
        "train_loss": 1.0,
        "test_loss": 1.0,
    }
    tested = selftest.Selftest(tmp_path)
    tested.whole = dict(sound)
    processes = iter((1, 2))

    def run(_: selftest.Selftest, *arguments: object) -> dict[str, Any]:
        if "exact.toml" in arguments:
            sound["world_size"] = next(processes)
        return spoil(sound) if "--output-dir" in arguments or "evaluate" in arguments else sound

    monkeypatch.setattr(selftest.Selftest, "run", run)
    monkeypatch.setattr("mnist_accel.files.checkpoint.CheckpointFolder.numbered", lambda _: [1])
    monkeypatch.setattr(
        selftest.Selftest, "start", lambda *_: subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE, text=True)
    )
    assert getattr(tested, check)()[0] is not True


def test_a_check_that_cannot_run_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LaunchError("ended with 1")

    monkeypatch.setattr(selftest.Selftest, "run", fail)
    checks = list(selftest.run_selftest(lambda _: nullcontext()))
    assert [check.passed for check in checks] == [False]
    assert checks[0].figures == "ended with 1"
    assert selftest.verdict(checks) == "1 of 1 checks failed: train and evaluate."
