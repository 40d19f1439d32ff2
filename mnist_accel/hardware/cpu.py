"""The name of the CPU, and the compiler for it."""

import os
import platform
import re
import shutil
from pathlib import Path


def cpu_name() -> str:
    """The processor's model, as the operating system names it."""
    info = Path("/proc/cpuinfo")  # Linux
    found = re.search(r"^model name\s*:\s*(.*\S)", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def has_compiler() -> bool:
    """Whether there is a C++ compiler, with which torch.compile builds kernels for a CPU."""
    names = (os.environ.get("CXX"), "g++", "clang++", "cl")
    return any(shutil.which(name) for name in names if name)
