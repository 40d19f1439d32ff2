"""The name of the CPU, and the compiler for it."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path


def cpu_name() -> str:
    """The processor's model, as the operating system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: platform knows it
    return platform.processor() or platform.machine()


def has_compiler() -> bool:
    """Whether there is a C++ compiler, with which torch.compile builds kernels for a CPU."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return any(shutil.which(name) for name in names if name)
