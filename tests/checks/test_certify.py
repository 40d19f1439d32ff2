import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mnist_accel.checks import arithmetic, certify, convergence
from mnist_accel.checks.arithmetic import reference
from mnist_accel.checks.trial_runs import Trials
from mnist_accel.commands.certify import certify as command
from mnist_accel.hardware.signals import StoppedError
from tests.conftest import Run


def sections_of(folder: Path, **checks: certify.Check) -> list[certify.Section]:
    """The sections of a certificate that consists of `checks`."""
    trials = Trials(folder, seeds=1, first_seed=0, burn_in_seconds=0, is_quick=False)
    return list(certify.certify(trials, checks))


def passing(_: Trials) -> tuple[bool, str, dict[str, Any]]:
    return True, "as it should be", {"figure": 1.0}


def failing(_: Trials) -> tuple[bool, str, dict[str, Any]]:
    return False, "wrong by 2", {}


def ending_in_an_error(_: Trials) -> tuple[bool, str, dict[str, Any]]:
    raise RuntimeError("1 of 10000 samples were not counted exactly once")


def test_a_sound_machine_passes_the_checks_of_arithmetic_and_processes(tmp_path: Path) -> None:
    """The short version of the test of a whole certificate."""
    names = ("arithmetic", "processes")
    sections = sections_of(tmp_path, **{name: certify.SECTIONS[name] for name in names})
    assert [(section.name, section.passed) for section in sections] == [(name, True) for name in names]
    assert certify.certificate(sections)["passed"]


@pytest.mark.parametrize("layer", [nn.Conv2d(32, 64, 3), nn.Linear(1024, 512)], ids=repr)
def test_a_layer_whose_results_lack_8_bits_of_mantissa_is_found(layer: nn.Module) -> None:
    values = torch.rand((64, 32, 12, 12) if isinstance(layer, nn.Conv2d) else (64, 1024))
    shares: dict[str, float] = {}
    result = layer(values)
    mantissa, exponent = torch.frexp(result)
    rounded = torch.ldexp((mantissa * 2**16).round() / 2**16, exponent)
    for name, found in (("whole", result), ("rounded", rounded)):
        arithmetic.compare_result(shares, name, 2**-24, layer, (values,), found)
    assert shares["whole"] < 0.5
    assert shares["rounded"] > 1.5
    assert arithmetic.worst(shares | {"broken": float("nan")}) == "broken"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sound_machine_gets_a_certificate(run: Run, tmp_path: Path) -> None:
    # With a change of the environment `run` starts a process of its own, as `certify` does: a fork has other bits.
    done = run("certify", "--quick", "--json", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["passed"]
    verdicts = {section["name"]: section["passed"] for section in found["sections"]}
    assert list(verdicts) == ["arithmetic", "repeatability", "processes", "nothing lost", "convergence", "speed"]
    assert verdicts["speed"] is None
    assert all(verdicts[name] for name in ("arithmetic", "repeatability", "nothing lost", "convergence"))
    assert json.loads((tmp_path / "certificate.json").read_text()) == found
    assert "This machine trains correctly" in (tmp_path / "certificate.html").read_text()
    checked = run("certify", "--check", "certificate.json", "--check", "certificate.json", "--json")
    assert json.loads(checked.stdout.splitlines()[-1]) == {"passed": True, "differences": {}}


def test_a_failed_section_is_named_with_advice(tmp_path: Path) -> None:
    sections = sections_of(tmp_path, arithmetic=passing, repeatability=failing)
    content = certify.certificate(sections)
    assert not content["passed"]
    assert certify.verdict(content) == "This machine FAILS: repeatability."
    assert "wrong by 2" in str(sections[1].as_line())
    assert "test the memory" in str(sections[1].as_line())


def test_a_section_that_ends_with_an_error_has_failed_and_the_others_go_on(tmp_path: Path) -> None:
    sections = sections_of(tmp_path, arithmetic=ending_in_an_error, processes=passing)
    assert [section.passed for section in sections] == [False, True]
    assert "not counted exactly once" in sections[0].summary
    assert not list(tmp_path.iterdir())


def test_a_signal_stops_the_certificate(tmp_path: Path) -> None:
    def stopped(_: Trials) -> tuple[bool, str, dict[str, Any]]:
        raise StoppedError(15, "stopped by SIGTERM after step 68", "continue with --resume auto")

    with pytest.raises(StoppedError, match="without a certificate") as error:
        sections_of(tmp_path, arithmetic=stopped, processes=passing)
    assert error.value.exit_code == 143
    assert not list(tmp_path.iterdir())


def test_a_failed_certificate_is_exit_code_1_when_it_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, check in (("good", passing), ("bad", failing)):
        (tmp_path / name).mkdir()
        certify.write(certify.certificate(sections_of(tmp_path, processes=check)), tmp_path / name)
    good, bad = (tmp_path / name / "certificate.json" for name in ("good", "bad"))
    assert command(check=[good]) == 0
    assert command(check=[good, bad], json=True) == 1
    differences = json.loads(capsys.readouterr().out.splitlines()[-1])["differences"]
    assert differences == {"processes": ["pass: as it should be", "FAIL: wrong by 2"]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "not a certificate"),
        ("[" * 100_000, "not a certificate"),
        ('{"passed": true, "sections": [], "machine": {}, "versions": {}, "time": "", "sha256": "0"}', "was changed"),
    ],
)
def test_a_certificate_that_was_changed_is_refused(run: Run, tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "certificate.json").write_text(content)
    done = run("certify", "--check", "certificate.json")
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_reference_runs_pass_and_shifted_ones_fail(precision: str) -> None:
    known = np.array(reference()["runs"][precision])
    assert known.shape == (100, len(convergence.NAMES))
    generator = np.random.default_rng(0)
    outcomes: dict[float, list[bool]] = {0.0: [], 4.0: []}
    for _ in range(500):
        order = generator.permutation(len(known))
        for shift, failed in outcomes.items():
            runs = known[order[:3]]
            runs[:, 0] += shift * known[:, 0].std()
            deviations, limit = convergence.compare(runs, known[order[3:]])
            failed.append(bool(np.abs(deviations).max() > limit))
    assert np.mean(outcomes[0.0]) <= 0.01
    assert np.mean(outcomes[4.0]) >= 0.99
