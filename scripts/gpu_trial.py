"""Try the package on a machine with a GPU: every way to train, speed, accuracy, resuming and faults, in a few minutes.

    python scripts/gpu_trial.py --minutes 9 results

Runs from a plain checkout. Each trial is a process of its own with a time limit. First those that measure time, one
after another, the most important ones first; then those that only must work, several at once. A failed trial is a
result, too. Each result is written into results/trials.jsonl the moment it is known; results/log.txt has the output of
the trials, results/profile.txt the operators of a training epoch. `--only PART` runs the trials whose names contain
PART; `--small` makes all trials tiny, to try the script itself on a CPU. The exit code is 0 if the script came to its
end.
"""

import argparse
import functools
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
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

    def __init__(self, folder: Path, seconds: float, only: str, *, small: bool) -> None:
        self.folder, self.only, self.small = folder, only, small
        self.deadline = time.monotonic() + seconds
        self.limits = threading.local()  # of the trial that a thread does
        self.short = ("--train-samples", "400", "--epochs", "1") if small else ()
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, name: str, trial: Callable[[], Result], seconds: float = 60) -> None:
        """Do one trial, unless less than 5 s are left; `seconds` is its time limit."""
        if self.only not in name:
            return
        left = self.deadline - time.monotonic()
        self.limits.end, began = time.monotonic() + min(seconds, left), time.monotonic()
        if left < 5:
            found: Result = {"skipped": "the time is over"}
        else:
            try:
                found = trial()
            except Exception as error:  # a failure is a result
                found = {"failed": f"{type(error).__name__}: {error}"[-1500:]}
        found = {"trial": name, "trial_seconds": round(time.monotonic() - began, 2)} | found
        with (self.folder / "trials.jsonl").open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found)[:600], flush=True)

    def command(
        self, *arguments: object, code: int = 0, module: str = "mnist_accel", variables: Variables = NONE
    ) -> str:
        """The stdout of `python -m MODULE ARGUMENTS`; raises RuntimeError on another exit code than `code`."""
        return self.program("-m", module, *arguments, code=code, variables=variables)

    def program(self, *arguments: object, code: int = 0, variables: Variables = NONE) -> str:
        """The stdout of `python ARGUMENTS`."""
        words = [sys.executable, *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"} | dict(variables)
        left = self.limits.end - time.monotonic()
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=left, check=False
        )
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"$ {' '.join(words[1:])}\n{done.stdout[-3000:]}{done.stderr[-3000:]}\n")
        if done.returncode != code:
            raise RuntimeError(f"exit code {done.returncode}: {done.stdout[-300:]}{done.stderr[-1000:]}")
        return done.stdout

    def worker(self, *arguments: object) -> Result:
        """The JSON object that a part of this script prints in a process of its own."""
        small = ["--small"] if self.small else []
        return dict(json.loads(self.program(__file__, *arguments, *small).splitlines()[-1]))

    def train(self, *arguments: object) -> Result:
        """The main figures of a training run."""
        began = time.monotonic()
        output = self.command("train", *arguments, *self.short, "--json", "--quiet")
        found = json.loads(output.splitlines()[-1])
        return {"process_seconds": time.monotonic() - began} | {key: found[key] for key in KEPT}

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


def resumed(trials: Trials, name: str, options: tuple[str, ...] = (), variables: Variables = NONE) -> Result:
    """Whether a run that was killed and resumed ends with the weights of an uninterrupted one; and a second whole run.

    `name` is of a folder for the runs.
    """
    samples = 1000 if trials.small else 20000
    arguments = (*options, "--train-samples", samples, "--epochs", 2, "--checkpoint-every", 10)
    wholes = [
        trials.command("train", *arguments, "--output-dir", f"{name}/{run}", "--json", "--quiet", variables=variables)
        for run in ("whole", "again")
    ]
    killed = f"{name}/killed"
    words = [sys.executable, "-m", "mnist_accel", "train", *map(str, arguments), "--output-dir", killed, "--quiet"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"} | dict(variables)
    process = subprocess.Popen(words, cwd=trials.folder, env=environment)
    while process.poll() is None and not list(trials.folder.glob(f"{killed}/checkpoints/checkpoint-*")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    again = ("--output-dir", killed, "--resume", "auto", "--json", "--quiet")
    rest = trials.command("train", *arguments, *again, variables=variables)
    first, repeated, second = (json.loads(text.splitlines()[-1]) for text in (*wholes, rest))
    return {
        "repeated_is_bit_exact": first["weights_sha256"] == repeated["weights_sha256"],
        "resumed_is_bit_exact": first["weights_sha256"] == second["weights_sha256"],
        "test_accuracy": [first["test_accuracy"], repeated["test_accuracy"], second["test_accuracy"]],
    }


def terminated(trials: Trials) -> Result:
    """Seconds until a run that got SIGTERM has saved and left; its exit code must be 143."""
    words = [sys.executable, "-m", "mnist_accel", "train", "--output-dir", "stopped", "--epochs", "50", "--quiet"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(words, cwd=trials.folder, env=environment)
    log = trials.folder / "stopped" / "metrics.partial.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code = process.wait(60)
    saved = list(trials.folder.glob("stopped/checkpoints/checkpoint-*"))
    return {"exit_code": code, "seconds_to_leave": time.monotonic() - began, "has_saved": bool(saved)}


def steps_alone(small: bool, cuda_graph: bool) -> Result:
    """Waits for the device in training steps, seconds of a warm epoch, peak memory, test images a second, a profile."""
    import torch

    from mnist_accel import TrainConfig
    from mnist_accel.data import datasets
    from mnist_accel.hardware.signals import StopRequests
    from mnist_accel.training import loop
    from mnist_accel.training.events import Observer
    from mnist_accel.training.guard import Guard
    from mnist_accel.training.metrics import predict_dataset
    from mnist_accel.training.setup import Progress, prepare
    from mnist_accel.training.train import split, start
    from mnist_accel.training.warm_up import warm_up

    samples = 2000 if small else 12800
    config = TrainConfig(train_samples=samples, epochs=1, cuda_graph=None if cuda_graph else False)
    hardware = start(config)
    dataset = split(config, datasets.load("mnist", Path(), print))
    setup = prepare(config, hardware, dataset)
    guard, is_cuda = Guard(config, {}, StopRequests(), Observer()), torch.cuda.is_available()
    if is_cuda:
        warm_up(setup, Progress())
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        loop.train_epoch(setup, Progress(), Observer(), guard)
        seconds.append(time.perf_counter() - began)
    found: Result = {"seconds_of_epochs": seconds, "samples": len(dataset.train), "tested_per_second": []}
    for _ in range(3):
        began = time.perf_counter()
        predict_dataset(setup.module, setup.test_data, hardware)
        found["tested_per_second"].append(len(dataset.test) / (time.perf_counter() - began))
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
    Path("profile.txt" if cuda_graph else "profile of single kernels.txt").write_text(
        profile.key_averages().table(sort_by=key, row_limit=40)
    )
    return found


def seeds(small: bool, count: int, settings: Result) -> Result:
    """The figures of several runs in this process, one after another, without pictures."""
    from mnist_accel import TrainConfig
    from mnist_accel.checks.convergence import figures_of
    from mnist_accel.training.events import Observer
    from mnist_accel.training.train import run_training

    defaults: Result = {"output_dir": "seeds"}
    settings = defaults | settings
    settings |= {"train_samples": 2000, "epochs": 1} if small else {}
    found: Result = {"settings": settings, "rows": []}
    for seed in range(count):
        result = run_training(TrainConfig(seed=seed, **settings), Observer())[0]
        record = result.history[-1]
        row: Result = {
            "test_accuracy": result.test_accuracy,
            "test_loss": result.test_loss,
            "seconds": result.train_seconds,
        }
        row |= {"validation_accuracy": record.validation_accuracy, "validation_loss": record.validation_loss}
        if settings.get("model") == "small-cnn":
            row["figures"] = figures_of(result)
        found["rows"].append(row)
    for name in ("test_accuracy", "seconds", *(["validation_accuracy"] if result.validation_samples else [])):
        values = [row[name] for row in found["rows"]]
        error = statistics.stdev(values) / len(values) ** 0.5
        found[name] = {"mean": statistics.mean(values), "standard_error": error, "least": min(values)}
    return found


def measurements(trials: Trials, search: Path | None) -> None:
    """The trials that measure time, in order of importance."""
    from mnist_accel.checks.trial_runs import REFERENCE_RUN

    few = 2 if trials.small else 30
    trials.run("environment", environment)
    for attempt in ("first", "second"):
        words = ("--recipe", "speedrun", "--output-dir", "speedrun")
        trials.run(f"speedrun, {attempt}", functools.partial(trials.train, *words), 90)
    trials.run("classic", lambda: trials.train("--output-dir", "classic"), 60)
    trials.run("classic, not recorded", lambda: trials.train("--no-cuda-graph", "--output-dir", "eager"), 60)
    trials.run("accurate", lambda: trials.train("--recipe", "accurate"), 60)
    trials.run("steps alone", lambda: trials.worker("--steps"), 60)
    trials.run("steps alone, not recorded", lambda: trials.worker("--steps", "--no-cuda-graph"), 60)
    for precision in ("bf16", "no"):
        for name, run in (("speedrun", {"recipe": "speedrun"}), ("reference run", REFERENCE_RUN)):
            settings = json.dumps({**run, "mixed_precision": precision})
            trials.run(f"seeds: {name}, {precision}", functools.partial(trials.worker, "--seeds", few, settings), 60)
    trials.run(
        "seeds: classic", lambda: trials.worker("--seeds", max(2, few // 2), json.dumps({"recipe": "classic"})), 60
    )
    rounds = ("--epochs", 1, "--rounds", 1, "--samples", 300) if trials.small else ("--epochs", 3, "--rounds", 2)
    trials.run("ways", lambda: json.loads(trials.program(ROOT / "scripts/benchmark_gpu.py", *rounds)), 120)
    for line in search.read_text().splitlines() if search else ():
        found = json.loads(line)
        count = found.pop("count", 2)
        trials.run(f"search: {line}", functools.partial(trials.worker, "--seeds", count, json.dumps(found)), 120)


def checks(trials: Trials) -> None:
    """The trials that only must work, eight at once."""
    with ThreadPoolExecutor(1 if trials.small else 8) as pool:

        def run(name: str, trial: Callable[[], Result], seconds: float = 120) -> None:
            pool.submit(trials.run, name, trial, seconds)

        # pytest-benchmark warns beside pytest-xdist, and warnings are errors here.
        options = ("-q", "-p", "no:cacheprovider", "-p", "no:benchmark", "-n", "6", "--maxfail", "40")
        folders = [ROOT / folder for folder in (TESTED[:1] if trials.small else TESTED)]
        run("tests", lambda: {"output": tail(trials, (*options, *folders))}, 240)
        run("certify", lambda: {"output": trials.command("certify", "--quick")})
        run("bench", lambda: trials.json("bench", "--rounds", 1), 150)
        run("classic, compiled", lambda: trials.train("--compile", "--output-dir", "compiled"))
        run("resume", lambda: resumed(trials, "plain"))
        run("resume, not recorded", lambda: resumed(trials, "eager", ("--no-cuda-graph",)))
        deterministic = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
        run("resume, fixed cuBLAS workspace", lambda: resumed(trials, "deterministic", (), deterministic))
        parts = ("--gradient-accumulation-steps", 3, "--epochs", 1)
        run("gradient accumulation", lambda: trials.train(*parts, "--output-dir", "parts"))
        eager = (*parts, "--no-cuda-graph", "--output-dir", "eager-parts")
        run("gradient accumulation, not recorded", lambda: trials.train(*eager))
        run("trace", lambda: {"output": trials.command("train", "--trace", "trace.jsonl", "--epochs", 1)[-200:]})
        run("SIGTERM", lambda: terminated(trials))
        nan = ("train", "--lr", 1000, "--quiet", "--output-dir", "nan")
        run("planted bad numbers", lambda: {"output": trials.command(*nan, code=1)})
        for recipe in RECIPES:
            for precision in PRECISIONS:
                words = ("--recipe", recipe, "--mixed-precision", precision, "--epochs", 1)
                folder = ("--output-dir", f"{recipe}-{precision}")
                run(f"{recipe}, {precision}", functools.partial(trials.train, *words, *folder))
        weights = ("--weights", "classic/mnist_cnn_model.pth")
        run("evaluate", lambda: trials.json("evaluate", *weights))
        run("predict", lambda: {"output": trials.command("predict", ROOT / "docs/number.png", *weights)[-200:]})
        run("export", lambda: trials.json("export", "--format", "onnx", *weights))
        run("report", lambda: {"output": trials.command("report", "classic")})
        run("doctor", lambda: {"output": trials.command("doctor")})
        run("two processes", lambda: {"output": trials.command("train", "--processes", 2, code=1)})
        two = ("train", "--processes", 2, "--cpu", "--output-dir", "two", *trials.short)
        run("two processes on the CPU", lambda: {"output": trials.command(*two)})


TESTED = ("tests/training", "tests/speed", "tests/hardware", "tests/checks", "tests/export", "tests/models")


def tail(trials: Trials, arguments: tuple[object, ...]) -> str:
    """The end of what pytest prints, also when tests fail."""
    try:
        return trials.command(*arguments, module="pytest")[-500:]
    finally:
        log = (trials.folder / "log.txt").read_text()
        (trials.folder / "tests.txt").write_text(log[-20000:])


def main() -> None:
    """Run the trials."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("gpu-trial"))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--only", default="", help="run the trials whose names contain this text")
    parser.add_argument("--search", type=Path, help="a file with the settings of more runs, one JSON object per line")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--no-cuda-graph", dest="cuda_graph", action="store_false", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        print(json.dumps(steps_alone(options.small, options.cuda_graph)))
    elif options.seeds:
        print(json.dumps(seeds(options.small, int(options.seeds[0]), json.loads(options.seeds[1]))))
    else:
        trials = Trials(options.folder.absolute(), 60 * options.minutes, options.only, small=options.small)
        search = options.search.absolute() if options.search else None
        measurements(trials, search)
        checks(trials)


if __name__ == "__main__":
    main()
