from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from mnist_accel.errors import UserError
from mnist_accel.hardware import accelerator
from mnist_accel.hardware.accelerator import Hardware, choose_precision, native_precision, start_hardware
from mnist_accel.hardware.cores import has_compiler

NATIVE, _ = native_precision("cpu")


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Each test begins as a new program does, and leaves nothing to the tests of other files."""
    _reset_accelerate()
    yield
    _reset_accelerate()


def _reset_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def on_cpu(mixed_precision: str = "auto", **settings: Any) -> Hardware:
    return start_hardware(cpu=True, mixed_precision=mixed_precision, **{"threads": None, "timeout": 60} | settings)


def test_auto_takes_native_bf16_and_says_why() -> None:
    hardware = on_cpu()
    assert hardware.mixed_precision == NATIVE
    assert "native" in hardware.precision_reason


def test_the_cores_are_divided_among_the_local_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "available_cores", lambda: 5)
    for processes, threads in ((1, 5), (2, 2), (8, 1)):
        monkeypatch.setattr(accelerator, "local_world_size", lambda processes=processes: processes)
        assert on_cpu().threads == torch.get_num_threads() == threads


def test_the_precision_no_that_accelerate_launch_exports_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert on_cpu().mixed_precision == NATIVE
    assert on_cpu("no").mixed_precision == "no"


def test_a_precision_that_accelerate_was_launched_with_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "native_precision", lambda _: ("no", "for this test"))
    assert choose_precision("auto", "cpu")[0] == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert choose_precision("auto", "cpu") == ("bf16", "as Accelerate was configured")
    assert choose_precision("no", "cpu")[0] == "no"


def test_a_precision_in_accelerates_configuration_file_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from accelerate.commands.config import config_args

    file = tmp_path / "default_config.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: bf16\nuse_cpu: true\n"
    )
    monkeypatch.setattr(config_args, "default_config_file", str(file))
    monkeypatch.setattr(accelerator, "native_precision", lambda _: ("no", "for this test"))
    assert choose_precision("auto", "cpu") == ("bf16", "as Accelerate was configured")


@pytest.mark.parametrize(("value", "reason"), [("fp16", "a CPU does not support it"), ("fp8", "not supported")])
def test_a_configured_precision_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", value)
    with pytest.raises(UserError, match=reason):
        on_cpu()


def test_mps_computes_in_fp32_only() -> None:
    assert choose_precision("auto", "mps")[0] == "no"
    with pytest.raises(UserError, match="only fp32"):
        choose_precision("bf16", "mps")


def test_float64_weights_run_in_float64() -> None:
    assert on_cpu(dtype="float64").mixed_precision == "no"


def test_accelerates_accumulation_setting_does_not_scale_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    hardware = on_cpu()
    weight = torch.ones(1, requires_grad=True)
    hardware.accelerator.backward((3 * weight).sum())
    assert weight.grad == 3


def test_a_compiled_model_is_replayed_where_one_gpu_computes_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert accelerator._compiler("cuda", accumulation_steps=1).mode == "reduce-overhead"
    assert accelerator._compiler("cuda", accumulation_steps=2).mode == "default"
    assert accelerator._compiler("cuda", accumulation_steps=1, is_recorded=True).mode == "default"
    assert accelerator._compiler("cpu", accumulation_steps=1).mode == "default"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert accelerator._compiler("cuda", accumulation_steps=1).mode == "default"


def test_threads_are_those_asked_for() -> None:
    assert on_cpu(threads=1).threads == torch.get_num_threads() == 1


def test_several_processes_need_a_launcher() -> None:
    with pytest.raises(UserError, match="one Python call is one process"):
        on_cpu(processes=2)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not has_compiler()
    with pytest.raises(UserError, match="needs a C"):
        on_cpu(compiled=True)
    (tmp_path / "my-compiler").touch(mode=0o755)
    monkeypatch.setenv("CXX", "my-compiler")
    assert has_compiler()


def test_a_program_may_train_in_one_precision_after_another() -> None:
    """Fails when `AcceleratorState._reset_state`, which is private, changes: then a replacement is needed."""
    for wanted in ("bf16", "no"):
        hardware = on_cpu(wanted)
        assert hardware.mixed_precision == hardware.accelerator.mixed_precision == wanted


def test_the_callers_own_accelerator_is_left_alone() -> None:
    own = Accelerator(cpu=True, mixed_precision="no", gradient_accumulation_steps=4)
    own.state.note = "the caller's"
    with pytest.raises(UserError, match="set up Accelerate itself"):
        on_cpu()
    assert AcceleratorState().note == "the caller's"
    assert own.gradient_accumulation_steps == 4
