"""One training run, from its configuration to its weights, record and figures."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mnist_accel.config.settings import RunConfig, TrainConfig
from mnist_accel.data import datasets, digits
from mnist_accel.data.digits import DataSet
from mnist_accel.errors import DataError
from mnist_accel.files import atomic, run_record, weights
from mnist_accel.hardware.accelerator import Hardware, start_hardware
from mnist_accel.hardware.cores import cpu_name, local_world_size
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.models import own_network
from mnist_accel.speed import bound_to_first_core
from mnist_accel.training import loop
from mnist_accel.training.events import EpochRecord, Observer, RunFacts
from mnist_accel.training.guard import Guard
from mnist_accel.training.metrics import Predictions
from mnist_accel.training.optimizer import NumbersError
from mnist_accel.training.setup import Progress, Setup, prepare
from mnist_accel.training.state import identity
from mnist_accel.training.warm_up import warm_up


@dataclass(frozen=True, kw_only=True)
class TrainResult(RunFacts):
    """The outcome of a training run. `epochs` counts the finished ones: fewer than asked for after an early stop."""

    steps: int
    train_loss: float  # running average over the last epoch
    train_accuracy: float  # likewise
    test_loss: float  # of the final weights
    test_accuracy: float  # likewise
    train_seconds: float  # time of all training steps, without loading, evaluation and pictures
    images_per_second: float  # of the last epoch
    wall_seconds: float = 0.0  # of the whole call
    weights_sha256: str
    chosen_epoch: int  # the epoch whose weights are the final ones
    history: tuple[EpochRecord, ...] = dataclasses.field(repr=False)
    step_losses: tuple[float, ...] = dataclasses.field(repr=False)  # mean training loss of each step
    time_spent: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)  # see `reports.timing`

    def as_json(self) -> dict[str, Any]:
        """The values of `--json`: everything that is not in the run's files."""
        in_files = ("settings", "class_names", "source", "checksums", "history", "step_losses")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in in_files}


def run_training(config: TrainConfig, observer: Observer) -> tuple[TrainResult, Hardware, DataSet, Predictions]:
    """Train, and write weights, record and figures; see `api.train`. The pictures need all that this returns."""
    hardware = start(config)
    observer.part_started("data")
    dataset = load_data(config.dataset, config.data_dir, hardware, observer, skip_damaged=config.skip_damaged)
    dataset = split(config, dataset)
    observer.part_started("start-up")
    who = identity(config, hardware, dataset)
    same = {name: getattr(config, name) for name in ("resume", "checkpoint_every", "compile", "cuda_graph")}
    hardware.require_same(who | same, "give every process the same settings")
    setup = prepare(config, hardware, dataset)
    if hardware.world_size > 1 and (text := own_network.doubt(config.model, setup.module)):
        observer.notice(text)
    with StopRequests() as stop:
        guard = Guard(config, who, stop, observer)
        progress = guard.resume(setup)
        if hardware.device.type == "cuda":
            warm_up(setup, progress)
        facts = run_facts(setup, dataset)
        observer.run_prepared(setup)
        observer.run_started(facts)
        with bound_to_first_core(config.speedups and hardware.device.type == "cpu" and local_world_size() == 1):
            predictions = loop.fit(setup, progress, observer, guard)
    observer.part_started("checkpoints")
    content = weights.serialise(setup.final_module)  # the same bytes on every process
    result = train_result(setup, facts, progress, predictions, content)
    if result.test_accuracy < 1.2 / len(result.class_names):
        observer.notice("the test accuracy is no better than guessing; lower --lr, or train longer")

    def publish() -> None:
        if hardware.is_main:
            write_results(config.output_dir, result, content)
            guard.checkpoints.clear()
            guard.epoch_log.unlink(missing_ok=True)

    hardware.together(publish)
    return result, hardware, dataset, predictions


def start(config: RunConfig) -> Hardware:
    """Bring up the hardware that `config` asks for, and make sure that the main process can write results."""
    names = ("cpu", "mixed_precision", "threads", "timeout", "processes")
    options: dict[str, Any] = {name: getattr(config, name) for name in names}
    if isinstance(config, TrainConfig):
        options |= {"dtype": config.dtype, "compiled": config.compile, "speedups": config.speedups}
        options |= {"is_recorded": config.wants_cuda_graph, "accumulation_steps": config.gradient_accumulation_steps}
    hardware = start_hardware(**options)
    hardware.together(lambda: atomic.require_writable(config.output_dir) if hardware.is_main else None)
    return hardware


def load_data(name: str, data_dir: Path, hardware: Hardware, observer: Observer, *, skip_damaged: bool) -> DataSet:
    """The data set `name`. Raises UserError if it is not available, or two machines found different ones."""
    load = partial(datasets.load, name, data_dir, observer.notice, observer.pictures_read, skip_damaged=skip_damaged)
    # One process of each machine reads a folder of pictures; the others find them in its cache.
    is_first = hardware.accelerator.is_local_main_process or not name.startswith("folder:")
    found = hardware.together(lambda: load() if is_first else None)
    dataset = hardware.together(lambda: found or load())
    hint = f"put the same files into {data_dir} on each machine, or name another --dataset"
    hardware.require_same({"data set": digits.fingerprint(dataset)}, hint)
    return dataset


def split(config: TrainConfig, dataset: DataSet) -> DataSet:
    """The data set with the samples that `config` asks for. Raises DataError if a class is only in the test part."""
    if untrained := sorted({*dataset.test.labels.tolist()} - {*dataset.train.labels.tolist()}):
        names = ", ".join(dataset.class_names[label] for label in untrained[:3])
        problem = f"{dataset.name}: {names}: a class in the test part but not in the training part"
        raise DataError(problem, "give each class training images, or delete its test images")
    dataset = digits.fold(dataset, config.fold) if config.fold else dataset
    train, validation = dataset.train, None
    if config.validation_samples:
        validation, train = digits.split_off(train, config.validation_samples, config.seed)
    if config.train_samples and config.train_samples < len(train):
        train, _ = digits.split_off(train, config.train_samples, config.seed)
    if not len(train):
        raise DataError(f"--validation-samples {config.validation_samples}: no training samples are left", "give fewer")
    return dataclasses.replace(dataset, train=train, validation=validation)


def run_facts(setup: Setup, dataset: DataSet) -> RunFacts:
    """The facts of the run that are known before its first step."""
    config, hardware = setup.config, setup.hardware
    of_hardware = ("world_size", "device_name", "threads", "mixed_precision", "precision_reason")
    return RunFacts(
        **{name: getattr(config, name) for name in ("model", "recipe", "epochs", "batch_size")},
        **{name: getattr(dataset, name) for name in ("class_names", "source", "checksums")},
        **{name: getattr(hardware, name) for name in of_hardware},
        settings=config.model_dump(mode="json"),
        dataset=dataset.name,
        train_samples=len(dataset.train),
        validation_samples=len(dataset.validation) if dataset.validation else 0,
        test_samples=len(dataset.test),
        parameters=sum(parameter.numel() for parameter in setup.module.parameters()),
        steps_per_epoch=setup.steps_per_epoch,
        exchange=setup.exchange,
        device=hardware.device.type,
        cpu=cpu_name(),
        output_dir=str(config.output_dir),
    )


def train_result(setup: Setup, facts: RunFacts, progress: Progress, tested: Predictions, content: bytes) -> TrainResult:
    """The result of a run that has finished; `content` is its weights file."""
    last = progress.history[-1]
    if not math.isfinite(tested.loss):
        raise NumbersError("the final weights give a test loss that is infinite or not a number", "lower --lr")
    return TrainResult(
        **vars(facts) | {"epochs": progress.epoch},
        steps=progress.epoch * setup.steps_per_epoch,
        train_loss=last.train_loss,
        train_accuracy=last.train_accuracy,
        test_loss=tested.loss,
        test_accuracy=tested.accuracy,
        train_seconds=sum(record.train_seconds for record in progress.history),
        images_per_second=last.images_per_second,
        weights_sha256=weights.sha256(content),
        chosen_epoch=progress.best_epoch if setup.config.select == "best" else progress.epoch,
        history=tuple(progress.history),
        step_losses=tuple(progress.step_losses.tolist()),
    )


def write_results(folder: Path, result: TrainResult, content: bytes) -> None:
    """Write weights, record, figures and step losses, together."""
    run = ("model", "recipe", "device", "device_name", "cpu", "threads", "world_size", "mixed_precision")
    data = ("source", "train_samples", "test_samples", "class_names", "checksums")
    final = {name: getattr(result, name) for name in ("test_loss", "test_accuracy")}
    record = {name: getattr(result, name) for name in (*run, "weights_sha256")} | {
        "config": result.settings,
        "dataset": {"name": result.dataset} | {name: getattr(result, name) for name in data},
        "versions": run_record.versions(),
        "git_commit": run_record.git_commit(),
        "metrics": dataclasses.asdict(result.history[result.chosen_epoch - 1]) | final,
    }
    files = {
        run_record.METRICS_FILE: run_record.history_lines(result.history),
        run_record.STEP_LOSSES_FILE: run_record.step_loss_lines(result.step_losses, result.steps_per_epoch),
        run_record.WEIGHTS_FILE: content,
        run_record.record_path(Path(run_record.WEIGHTS_FILE)).name: run_record.record_bytes(record),
    }
    atomic.publish({folder / name: content for name, content in files.items()})
