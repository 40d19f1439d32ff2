"""The CPU, its cores and compiler, and the number of processes. Does not import torch."""

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
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++"))


def available_cores() -> int:
    """Cores that this process may use: those of its CPU affinity, limited by its control group; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cgroup_quota())))


def cgroup_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """The CPU limit of this process' control group (version 2) and the groups above it in cores; infinite without one.

    Source: `cpu.max` ("quota period" in µs, or "max") in https://docs.kernel.org/admin-guide/cgroup-v2.html.
    """
    found = re.search("^0::/(.*)", membership.read_text(), re.MULTILINE) if membership.exists() else None
    here = root / found[1] if found else root
    files = [folder / "cpu.max" for folder in (here, *here.parents)]
    limits = [file.read_text().split() for file in files if file.exists()]
    return min((int(quota) / int(period) for quota, period in limits if quota != "max"), default=float("inf"))


def launched_world_size() -> int | None:
    """Processes of the whole run if a launcher (torchrun, accelerate launch, Slurm) started this one; else None."""
    return int(os.environ.get("WORLD_SIZE") or 0) or None


def launched_rank() -> int:
    """Rank of this process in the whole run; 0 without a launcher."""
    return int(os.environ.get("RANK") or 0)


def local_world_size() -> int:
    """Processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 0) or launched_world_size() or 1


def shorten_waiting_if_busy(load: Path = Path("/proc/loadavg")) -> None:
    """Let torch's threads sleep after about a millisecond of waiting for each other if other programs use all cores.

    By default they wait ten times as long without sleeping, although the thread that they wait for may need their core.
    On a quiet machine the default is faster (docs/performance.md). Call this before torch is imported, because
    GNU OpenMP, which torch uses on Linux, reads the variable then. A value that the user has set is kept.
    """
    if load.exists() and not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        running = int(load.read_text().split()[3].split("/")[0])  # threads of the whole machine, this one included
        if running > available_cores():
            os.environ["GOMP_SPINCOUNT"] = "30000"
