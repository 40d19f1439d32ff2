"""`mnist-accel doctor`: facts about this machine and its settings, and warnings of common mistakes."""

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from mnist_accel.config.base import count
from mnist_accel.data import named_sets as data
from mnist_accel.errors import UserError
from mnist_accel.files import run_record
from mnist_accel.hardware.accelerator import accelerate_configuration, accelerator_type, choose_precision, gpu_count
from mnist_accel.hardware.cores import available_cores, cgroup_quota, cpu_name, local_world_size

LAUNCHER_VARIABLE = re.compile("(LOCAL_)?RANK|(LOCAL_)?WORLD_SIZE|(ACCELERATE|CUDA|GLOO|MASTER|MKL|NCCL|OMP)_.*")


@dataclass
class Findings:
    """Facts by name, and warnings that say what is wrong and how to mend it."""

    facts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def examine(data_dir: Path) -> Findings:
    """Examine the installation, the devices, the launcher and the data; nothing is changed, downloaded or trained."""
    packages = ", ".join(f"{name} {version}" for name, version in run_record.versions().items())
    findings = Findings({"system": platform.platform(), "packages": packages})
    _devices(findings)
    _launcher(findings)
    _folders(findings, data_dir)
    return findings


def _devices(findings: Findings) -> None:
    cores, gpus, quota = available_cores(), gpu_count(), cgroup_quota()
    limit = "" if quota == float("inf") else f" (control group: {quota:g})"
    findings.facts["cpu"] = f"{cpu_name()}, {cores} cores available of {os.cpu_count()}{limit}"
    findings.facts["other programs"] = f"use {psutil.cpu_percent(interval=0.3):.0f}% of the CPU"
    names = [torch.cuda.get_device_name(i) for i in range(gpus)] if torch.cuda.is_available() else ["MPS"] * gpus
    findings.facts["accelerators"] = ", ".join(names) or "none"
    try:
        precision, reason = choose_precision("auto", accelerator_type() or "cpu")
        findings.facts["precision"] = f"{'fp32' if precision == 'no' else precision} ({reason})"
    except UserError as error:
        findings.warnings.append(str(error))


def _launcher(findings: Findings) -> None:
    variables = {name: value for name, value in sorted(os.environ.items()) if LAUNCHER_VARIABLE.fullmatch(name)}
    findings.facts["launcher variables"] = ", ".join(f"{name}={value}" for name, value in variables.items()) or "none"
    cores, local, asked = available_cores(), local_world_size(), variables.get("OMP_NUM_THREADS", "")
    waiting = [f", {name}={os.environ[name]}" for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT") if name in os.environ]
    findings.facts["threads"] = f"{max(1, cores // local)} in each of {local} processes{''.join(waiting)}"
    if asked.isdigit() and int(asked) * local > cores:
        findings.warnings.append(
            f"OMP_NUM_THREADS={asked} in {local} processes is more than {cores} cores; mnist-accel sets "
            "its own number of threads, but other programs become slow; unset it"
        )
    try:
        path, configured = accelerate_configuration()
    except UserError as error:
        findings.warnings.append(str(error))
        return
    findings.facts["Accelerate's config file"] = str(path) if configured is not None else f"none at {path}"
    machines = getattr(configured, "num_machines", 1) or 1
    processes = -(-(getattr(configured, "num_processes", 1) or 1) // machines)  # the file counts those of all machines
    if processes > max(gpus := gpu_count(), 1):
        reason = f"but this machine has {count(gpus, 'GPU')}; give at most {gpus * machines} in all"
        if not gpus:
            reason = f"but without a GPU accelerate launch starts one; use train --processes {processes} or torchrun"
        findings.warnings.append(f"{path} asks for {processes} processes per machine, {reason}")


def _folders(findings: Findings, data_dir: Path) -> None:
    if not os.access(".", os.W_OK):
        findings.warnings.append(f"cannot write results in {Path.cwd()}; give train and evaluate --output-dir FOLDER")
    if not data_dir.is_dir() and (data_dir.exists() or data_dir != Path("data")):
        findings.warnings.append(f"--data-dir {data_dir}: no such folder; check the name")
    for name, source in data.NAMED_SETS.items():
        folder = data_dir / source.torchvision / "raw"
        _, checksums, damages = data.read_folder(folder, source)
        fact = "in the package" if name == "mnist" else f"not in {folder}; downloaded when needed"
        if damages:
            fact = f"damaged in {folder}"
        elif len(checksums) == len(source.files):
            fact = f"complete in {folder}"
        findings.facts[f"data: {name}"] = fact
        findings.warnings += [f"{damage}; delete it" for damage in damages]
