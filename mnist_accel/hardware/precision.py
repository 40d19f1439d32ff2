"""Chooses the precision of the forward pass, and reads Accelerate's configuration for it."""

import os
from pathlib import Path
from typing import Any

import torch

from mnist_accel.errors import UserError


def choose_precision(wanted: str, kind: str | None, dtype: str = "float32") -> tuple[str, str]:
    """Choose no, bf16 or fp16 for a kind of device (cpu, cuda or mps), and say why in words for people.

    Raises UserError if the device does not support the precision that was `wanted`.
    """
    if dtype == "float64":
        return "no", "float64 weights"
    precision, reason = wanted, "as asked"
    if precision == "auto":
        native = native_bf16(kind)
        precision, reason = ("bf16", native) if native else ("no", "no native bf16 on this device")
        if configured := _configured_precision():
            precision, reason = configured, "as Accelerate was configured"
    if precision not in ("no", "bf16", "fp16"):
        raise UserError(f"mixed precision {precision!r} is not supported", "give no, bf16 or fp16")
    if precision == "fp16" and kind == "cpu":
        raise UserError(f"mixed precision fp16 ({reason}): a CPU does not support it", "give bf16 or no")
    if precision != "no" and kind == "mps":
        raise UserError(f"mixed precision {precision} ({reason}): Apple MPS supports only fp32", "give no")
    return precision, reason


def native_bf16(kind: str | None) -> str | None:
    """Why bf16 is native on this kind of device; None where it is not."""
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return f"native: compute capability {major}.{minor}" if major >= 8 else None
    if kind == "cpu":
        for name in ("amx_bf16", "avx512_bf16", "bf16"):  # the last is ARM's
            if torch.cpu.get_capabilities().get(name):
                return f"native: {name.upper()}"
    return None


def _configured_precision() -> str | None:
    """The precision that `accelerate launch`, or else Accelerate's configuration file, asks for; None without one."""
    value = os.environ.get("ACCELERATE_MIXED_PRECISION")
    if value is None:
        value = getattr(accelerate_configuration()[1], "mixed_precision", None)
    return None if value in (None, "no") else str(value).lower()  # the launcher exports "no" if nothing was chosen


def accelerate_configuration() -> tuple[Path, Any]:
    """The path of Accelerate's default configuration file, and its content; None if there is no such file."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    path = Path(default_config_file)
    if not path.is_file():
        return path, None
    try:
        return path, load_config_from_file(default_config_file)
    except Exception as error:  # a damaged YAML or JSON file raises almost anything
        raise UserError(
            f"{path}: not a readable Accelerate configuration ({error})",
            "run accelerate config again, or give --mixed-precision",
        ) from error
