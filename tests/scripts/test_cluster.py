"""The files for Slurm, Kubernetes and SkyPilot, as far as they can be tried without a cluster."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import SMALL_MNIST, clean_environment

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "scripts" / "cluster"
SHORT = ("--dataset", SMALL_MNIST, "--train-samples", "800", "--batch-size", "50", "--epochs", "4", "--threads", "1")


def program(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a Slurm job on one machine with two processes; `requeued` appears when it is queued again."""
    short = shlex.join([*SHORT, "--checkpoint-every", "5"])
    launcher = shlex.join([sys.executable, "-m", "torch.distributed.run"])
    program(tmp_path / "bin/srun", 'SLURM_NODEID=0 exec "$@"')
    program(tmp_path / "bin/scontrol", '[ "$1" = requeue ] && touch requeued', "echo 127.0.0.1")
    program(tmp_path / "bin/torchrun", f'exec {launcher} "$@" {short}')
    program(tmp_path / ".venv/bin/activate", "true")
    job = {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NAME": "job"}
    machine = {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2"}
    return clean_environment() | job | machine | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def test_a_preempted_slurm_job_is_queued_again_and_ends_with_the_same_weights(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "runs/job"
    first = subprocess.Popen(["bash", CLUSTER / "slurm.sh"], cwd=tmp_path, env=slurm, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(output.glob("checkpoints/checkpoint-*"))) < 2:
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    _, said = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "a checkpoint was saved" in said
    assert (tmp_path / "requeued").exists()
    second = subprocess.run(
        ["bash", CLUSTER / "slurm.sh"], cwd=tmp_path, env=slurm, capture_output=True, text=True, timeout=120, check=True
    )
    assert "continuing from" in second.stderr
    whole = [sys.executable, "-m", "mnist_accel", "train", *SHORT, "--processes", "2", "--output-dir", "whole"]
    subprocess.run(whole, cwd=tmp_path, env=clean_environment(), capture_output=True, check=True)
    assert weights_hash(output) == weights_hash(tmp_path / "whole")


def weights_hash(folder: Path) -> str:
    return str(json.loads((folder / "mnist_cnn_model.json").read_text())["weights_sha256"])


def test_the_train_job_is_valid_for_kubeflow_and_kubernetes() -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models", reason='pip install "mnist-accel[test]"')
    claim, job = yaml.safe_load_all((CLUSTER / "trainjob.yaml").read_text())
    read = models.TrainerV1alpha1TrainJob.from_dict(job)
    assert read.to_dict() == job  # a field that is unknown or in the wrong place would be lost
    assert models.IoK8sApiCoreV1PersistentVolumeClaim.from_dict(claim).to_dict() == claim
    mounted = job["spec"]["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    pod = mounted["template"]["spec"]["template"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert job["spec"]["trainer"]["args"][-1].startswith(pod["containers"][0]["volumeMounts"][0]["mountPath"])


def test_commands_of_the_cluster_files_are_valid_training_commands() -> None:
    job = list(yaml.safe_load_all((CLUSTER / "trainjob.yaml").read_text()))[1]["spec"]["trainer"]
    task = yaml.safe_load((CLUSTER / "sky.yaml").read_text())
    texts = [shlex.join(job["command"] + job["args"]), task["run"], (CLUSTER / "slurm.sh").read_text()]
    for text in texts:
        (arguments,) = re.findall(r"-m mnist_accel (train[^\n&\"]*)", text)
        done = mnist_accel(*shlex.split(arguments), "--epochs", "0", "--output-dir", ".")
        assert "--epochs 0: out of range" in done.stderr, done.stderr  # everything else is accepted
        assert len(done.stderr.splitlines()) == 1


def mnist_accel(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mnist_accel", *arguments]
    return subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)


def test_the_steps_of_the_container_make_a_program_that_trains(tmp_path: Path) -> None:
    """They run in a root folder of their own, with the system, the Python and the libraries of this machine."""
    root, folder, environment = tmp_path / "root", "/", clean_environment()
    root.mkdir()
    inside = fresh_root(root)
    for step in (CLUSTER / "Containerfile").read_text().splitlines():
        kind, _, rest = step.partition(" ")
        if kind == "WORKDIR":
            folder = rest
            (root / rest[1:]).mkdir()
        elif kind == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, root / folder[1:] / target)
        elif kind == "ENV":
            name, _, value = rest.partition("=")
            environment[name] = value
        elif kind == "RUN":
            install = [sys.executable, "-m", *shlex.split(rest), "--quiet", "--no-deps", "--target", "/site"]
            subprocess.run([*inside, folder, *install], env=environment, capture_output=True, check=True)
        elif kind == "CMD":
            train = [*json.loads(rest), "--train-samples", "200", "--epochs", "1", "--quiet"]
    environment |= {"PATH": f"/site/bin:{environment['PATH']}", "PYTHONPATH": "/site"}
    subprocess.run([*inside, folder, *train], env=environment, check=True)
    assert (root / "output/mnist_cnn_model.pth").exists()


def fresh_root(root: Path) -> list[str]:
    """The beginning of a command that runs with `root` as its root folder; a working directory and a command follow."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a root folder of its own needs root")
    own = {"/src", "/output", "/site", "/tmp", f"/{root.parts[1]}"}
    system = [path for path in Path("/").iterdir() if path.is_dir() and str(path) not in own]
    if f"/{Path(sys.prefix).parts[1]}" in own:  # a virtual environment in /tmp, say
        system.append(Path(sys.prefix))
    mounts = [f"mkdir -p {root}{path} && mount --rbind {path} {root}{path}" for path in system]
    (root / "tmp").mkdir()
    script = " && ".join([*mounts, f'exec chroot {root} /usr/bin/env --chdir="$0" "$@"'])
    return ["unshare", "--mount", "bash", "-c", script]


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
