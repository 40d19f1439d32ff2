from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mnist_accel.config.settings import TrainConfig
from mnist_accel.errors import UserError
from mnist_accel.hardware import accelerator as hardware
from mnist_accel.hardware.cores import available_cores

NATIVE = "bf16" if hardware._native_bf16("cpu") else "no"


def test_auto_takes_native_bf16_and_says_why() -> None:
    machine = hardware.start(TrainConfig(cpu=True))
    assert machine.mixed_precision == NATIVE
    assert "native" in machine.precision_reason
    assert machine.threads == torch.get_num_threads() == available_cores()


def test_the_no_that_accelerate_launch_exports_is_not_a_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert hardware.start(TrainConfig(cpu=True)).mixed_precision == NATIVE
    assert hardware.start(TrainConfig(cpu=True, mixed_precision="no")).mixed_precision == "no"


def test_a_precision_that_accelerate_was_launched_with_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_native_bf16", lambda _: None)
    assert hardware.start(TrainConfig(cpu=True)).mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    machine = hardware.start(TrainConfig(cpu=True))
    assert (machine.mixed_precision, machine.precision_reason) == ("bf16", "as Accelerate was configured")
    assert hardware.start(TrainConfig(cpu=True, mixed_precision="no")).mixed_precision == "no"


def test_a_precision_in_accelerates_configuration_file_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from accelerate.commands.config import config_args

    file = tmp_path / "default_config.yaml"
    file.write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nmixed_precision: bf16\nuse_cpu: true\n"
    )
    monkeypatch.setattr(config_args, "default_config_file", str(file))
    monkeypatch.setattr(hardware, "_native_bf16", lambda _: None)
    assert hardware.start(TrainConfig(cpu=True)).precision_reason == "as Accelerate was configured"


@pytest.mark.parametrize(("value", "reason"), [("fp16", "CPU has no fp16"), ("fp8", "not supported")])
def test_a_configured_precision_that_cannot_work_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str, reason: str
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", value)
    with pytest.raises(UserError, match=reason):
        hardware.start(TrainConfig(cpu=True))


def test_accelerates_accumulation_setting_does_not_scale_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    machine = hardware.start(TrainConfig(cpu=True))
    weight = torch.ones(1, requires_grad=True)
    machine.accelerator.backward((3 * weight).sum())
    assert weight.grad == 3


def test_a_compiled_model_is_replayed_where_one_gpu_computes_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_accelerator_type", lambda: "cuda")
    whole, parts = TrainConfig(), TrainConfig(gradient_accumulation_steps=2)
    assert hardware._compiler(whole, processes=1).mode == "reduce-overhead"
    others = [(whole, 2), (parts, 1), (TrainConfig(cpu=True), 1)]
    assert {hardware._compiler(config, processes).mode for config, processes in others} == {"default"}


def test_threads_are_those_asked_for() -> None:
    assert hardware.start(TrainConfig(cpu=True, threads=1)).threads == torch.get_num_threads() == 1


def test_several_processes_need_a_launcher() -> None:
    if available_cores() < 2:
        pytest.skip("two processes need two cores")
    with pytest.raises(UserError, match="one Python call is one process"):
        hardware.start(TrainConfig(cpu=True, processes=2))


def test_float64_weights_run_in_float64() -> None:
    assert hardware.start(TrainConfig(cpu=True, dtype="float64")).mixed_precision == "no"
