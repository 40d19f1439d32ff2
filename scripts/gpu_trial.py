"""Try the package on a machine with a GPU: every way to train, speed, accuracy, resuming and faults, in a few minutes.

    python scripts/gpu_trial.py --minutes 9 results

Runs from a plain checkout. Each trial is a process of its own with a time limit; the most important ones come first. A
failed trial is a result, too, and the next one follows. Each result is written into results/trials.jsonl the moment it
is known; results/log.txt has the output of the trials, results/profile.txt the operators of a training epoch. `--small`
makes all trials tiny, to try the script itself on a CPU. The exit code is 0 if the script came to its end.
"""

import argparse
import functools
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = (
    *("accelerate", "cv2", "filelock", "jinja2", "matplotlib", "numpy", "packaging", "PIL", "platformdirs", "pooch"),
    *("psutil", "pydantic", "rich", "safetensors", "scipy", "torch", "torchvision", "typer"),
    *("onnx", "onnxruntime", "pytest"),
)
RECIPES, PRECISIONS = ("classic", "speedrun", "accurate"), ("bf16", "fp16", "no")
FIGURES = ("test_accuracy", "test_loss", "train_seconds", "images_per_second", "wall_seconds")
KEPT = (*FIGURES, "mixed_precision", "device_name", "weights_sha256")
Result = dict[str, Any]
Variables = Mapping[str, str]
NONE: Variables = {}


class Trials:
    """Runs trials until the time is over, and writes their results."""

    def __init__(self, folder: Path, seconds: float, *, small: bool) -> None:
        self.folder, self.small = folder, small
        self.deadline = time.monotonic() + seconds
        self.short = ("--train-samples", "400", "--epochs", "1") if small else ()
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, trial: Callable[[], Result], seconds: float = 60) -> None:
        """Do one trial, unless less than 5 s are left; `seconds` is its time limit."""
        left = self.deadline - time.monotonic()
        self.limit, began = min(seconds, left), time.monotonic()
        if left < 5:
            found: Result = {"skipped": "the time is over"}
        else:
            try:
                found = trial()
            except Exception as error:  # a failure is a result
                found = {"failed": f"{type(error).__name__}: {error}"[-1500:]}
        found = {"trial": name, "seconds": round(time.monotonic() - began, 2)} | found
        with (self.folder / "trials.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found)[:400], flush=True)

    def command(
        self, *arguments: object, code: int = 0, module: str = "mnist_accel", variables: Variables = NONE
    ) -> str:
        """The stdout of `python -m MODULE ARGUMENTS`; raises RuntimeError on another exit code than `code`."""
        words = [sys.executable, "-m", module, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | dict(variables)
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=self.limit, check=False
        )
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"$ {' '.join(words[1:])}\n{done.stdout[-3000:]}{done.stderr[-3000:]}\n")
        if done.returncode != code:
            raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-1000:]}")
        return done.stdout

    def train(self, *arguments: object) -> Result:
        """The main figures of a training run."""
        output = self.command("train", *arguments, *self.short, "--json", "--quiet")
        found = json.loads(output.splitlines()[-1])
        return {key: found[key] for key in KEPT}

    def json(self, *arguments: object) -> Result:
        """The JSON object that a command prints."""
        return dict(json.loads(self.command(*arguments, "--json").splitlines()[-1]))


def environment() -> Result:
    """Versions, the GPU, and the packages that are missing."""
    import torch

    found: Result = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    found["missing"] = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if torch.cuda.is_available():
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found


def resumed(trials: Trials, variables: Variables = NONE) -> Result:
    """Whether a run that was killed and resumed ends with the weights of an uninterrupted one."""
    arguments = ("--train-samples", 20000 if not trials.small else 1000, "--epochs", 2, "--checkpoint-every", 10)
    whole = trials.command("train", *arguments, "--output-dir", "whole", "--json", "--quiet", variables=variables)
    words = [sys.executable, "-m", "mnist_accel", "train", *map(str, arguments), "--output-dir", "killed", "--quiet"]
    process = subprocess.Popen(words, cwd=trials.folder, env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(variables))
    while process.poll() is None and not list(trials.folder.glob("killed/checkpoints/checkpoint-*")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    again = ("--output-dir", "killed", "--resume", "auto", "--json", "--quiet")
    rest = trials.command("train", *arguments, *again, variables=variables)
    first, second = (json.loads(text.splitlines()[-1]) for text in (whole, rest))
    return {
        "bit_exact": first["weights_sha256"] == second["weights_sha256"],
        "test_accuracy": [first["test_accuracy"], second["test_accuracy"]],
    }


def terminated(trials: Trials) -> Result:
    """Seconds until a run that got SIGTERM has saved and left; its exit code must be 143."""
    words = [sys.executable, "-m", "mnist_accel", "train", "--output-dir", "stopped", "--epochs", "50", "--quiet"]
    process = subprocess.Popen(words, cwd=trials.folder, env=os.environ | {"PYTHONPATH": str(ROOT)})
    log = trials.folder / "stopped" / "metrics.partial.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code = process.wait(60)
    saved = list(trials.folder.glob("stopped/checkpoints/checkpoint-*"))
    return {"exit_code": code, "seconds_to_leave": time.monotonic() - began, "has_saved": bool(saved)}


def steps_alone(small: bool, cuda_graph: bool) -> Result:
    """Waits for the device inside the training steps, seconds of a warm epoch, peak memory, and a profile."""
    import torch

    from mnist_accel import TrainConfig
    from mnist_accel.data import datasets
    from mnist_accel.hardware.signals import StopRequests
    from mnist_accel.training import loop
    from mnist_accel.training.events import Observer
    from mnist_accel.training.guard import Guard
    from mnist_accel.training.setup import Progress, prepare
    from mnist_accel.training.train import split, start

    config = TrainConfig(train_samples=2000 if small else None, epochs=1, cuda_graph=cuda_graph)
    hardware = start(config)
    dataset, _ = split(config, datasets.load("mnist", Path(), print))
    setup = prepare(config, hardware, dataset)
    guard, is_cuda = Guard(config, {}, StopRequests(), Observer()), torch.cuda.is_available()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        loop.train_epoch(setup, Progress(), Observer(), guard)
        seconds.append(time.perf_counter() - began)
    found: Result = {"seconds_of_epochs": seconds, "samples": len(dataset.train)}
    if is_cuda:
        found["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
        torch.cuda.set_sync_debug_mode("error")
        batch = torch.arange(config.batch_size, device=hardware.device)
        sums = setup.empty_sums(5)
        for step in range(5):
            loop.train_step(setup, batch, 0, step, sums)  # raises where it waits for the device
        torch.cuda.set_sync_debug_mode("default")
        found["waits_in_a_step"] = 0
    with torch.profiler.profile() as profile:
        loop.train_epoch(setup, Progress(), Observer(), guard)
    key = "self_cuda_time_total" if is_cuda else "self_cpu_time_total"
    Path("profile of graphs.txt" if cuda_graph else "profile.txt").write_text(
        profile.key_averages().table(sort_by=key, row_limit=40)
    )
    return found


def all_trials(trials: Trials) -> None:
    """The trials in order of importance."""
    small = ["--small"] if trials.small else []
    trials.run("environment", environment)
    trials.run("speedrun", lambda: trials.train("--recipe", "speedrun", "--output-dir", "speedrun"), 90)
    trials.run("classic", lambda: trials.train("--output-dir", "classic"), 90)
    for recipe in ("speedrun", "classic"):
        words = ("--recipe", recipe, "--cuda-graph", "--output-dir", f"{recipe}-graph")
        trials.run(f"{recipe}, CUDA graph", functools.partial(trials.train, *words), 90)
    worker = [sys.executable, __file__, "--worker", *small]
    trials.run("steps alone", lambda: output(worker, trials), 90)
    trials.run("steps alone, CUDA graph", lambda: output([*worker, "--cuda-graph"], trials), 90)
    for recipe in RECIPES:
        for precision in PRECISIONS:
            arguments = ("--recipe", recipe, "--mixed-precision", precision, "--epochs", 1, "--output-dir", "matrix")
            trials.run(f"{recipe}, {precision}", functools.partial(trials.train, *arguments))
    trials.run("classic, compiled", lambda: trials.train("--compile", "--output-dir", "compiled"), 120)
    group = ("train", "--recipe", "speedrun", "--seeds", 2 if trials.small else 30, "--output-dir", "group", "--quiet")
    trials.run("speedrun, 30 seeds", lambda: trials.json(*group, *trials.short), 120)
    trials.run("resume", lambda: resumed(trials))
    deterministic = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "CUDNN_DETERMINISTIC": "1"}
    trials.run("resume, deterministic cuBLAS", lambda: resumed(trials, deterministic))
    trials.run("SIGTERM", lambda: terminated(trials))
    trials.run("planted bad numbers", lambda: {"output": trials.command("train", "--lr", 1000, "--quiet", code=1)})
    weights = ("--weights", "classic/mnist_cnn_model.pth")
    trials.run("evaluate", lambda: trials.json("evaluate", *weights))
    trials.run("predict", lambda: {"output": trials.command("predict", "classic/predictions.png", *weights)[-200:]})
    trials.run("export", lambda: trials.json("export", "--format", "onnx", *weights))
    trials.run("report", lambda: {"output": trials.command("report", "classic")})
    trials.run("doctor", lambda: {"output": trials.command("doctor")})
    two = ("--nproc-per-node", 2, "--standalone", "-m", "mnist_accel", "train", *trials.short)
    trials.run(
        "two processes on this machine", lambda: {"output": trials.command(*two, module="torch.distributed.run")}
    )
    trials.run("bench", lambda: trials.json("bench", "--rounds", 1 if trials.small else 3), 150)
    trials.run("certify", lambda: {"output": trials.command("certify", "--quick")}, 150)
    tests = ("-q", "-x", "-p", "no:cacheprovider", str(ROOT / "tests" / "training" / "test_train.py"))
    trials.run("tests", lambda: {"output": trials.command(*tests, module="pytest")[-500:]}, 300)


def output(words: list[str], trials: Trials) -> Result:
    """The JSON object that a worker prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        words, cwd=trials.folder, env=environment, capture_output=True, text=True, timeout=trials.limit, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("gpu-trial"))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cuda-graph", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(steps_alone(options.small, options.cuda_graph)))
        return
    all_trials(Trials(options.folder.absolute(), 60 * options.minutes, small=options.small))


if __name__ == "__main__":
    main()
