"""The objects that the training loop works on, and the position of a run."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from mnist_accel import speed
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.batches import Augmentation, InputPipeline
from mnist_accel.data.digits import DataSet
from mnist_accel.errors import UserError
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.models import architectures
from mnist_accel.training.events import EpochRecord
from mnist_accel.training.metrics import exact_type
from mnist_accel.training.optimizer import BadNumbers, WeightAverage, build_optimizer


@dataclass
class Setup:
    """Everything that the training loop works on."""

    config: TrainConfig
    hardware: Hardware
    model: nn.Module  # as Accelerate prepared it: with autocast, and with wrappers that compile and exchange gradients
    module: nn.Module  # the model without wrappers
    optimizer: torch.optim.Optimizer
    bad_numbers: BadNumbers
    replay: speed.Replay  # calls the function that computes a step, or replays a recording of it
    train_data: InputPipeline
    test_data: InputPipeline
    validation_data: InputPipeline | None  # the held-out training samples
    augment: Augmentation
    weight_average: WeightAverage | None
    exchange: str = ""  # how processes exchange gradients; empty for one process

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train_data) // self.config.batch_size)  # the last batch may be short

    @property
    def final_module(self) -> nn.Module:
        """The module that is evaluated and saved: the average of the weights where one is kept."""
        return self.weight_average.module if self.weight_average else self.module

    def empty_sums(self, steps: int) -> Tensor:
        """`Progress.sums` before the first of `steps` steps."""
        return torch.zeros(3, steps, device=self.hardware.device, dtype=exact_type(self.hardware.device))


@dataclass
class Progress:
    """The position of a run, and its figures so far."""

    step: int = 0  # number of finished steps of the current epoch
    # (3, steps) on the device, this process's part of each step of the current epoch: summed cross entropy; number of
    # correct predictions; 1 from the first step with a number that is not finite. None before the first step.
    sums: Tensor | None = None
    epoch_seconds: float = 0.0  # time of the training steps of the current epoch so far
    history: list[EpochRecord] = field(default_factory=list)  # of the finished epochs
    # (steps,) mean cross entropy of each step of the finished epochs
    step_losses: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    best_weights: dict[str, Tensor] = field(default_factory=dict)  # on the CPU; empty without held-out samples

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch, counted from 1, with the lowest validation loss; without held-out samples, the last one."""
        losses = [record.validation_loss for record in self.history if record.validation_loss is not None]
        return losses.index(min(losses)) + 1 if losses else self.epoch

    def is_finished(self, config: TrainConfig) -> bool:
        """Whether all epochs are done, or `early_stop` epochs in a row had no lower validation loss."""
        is_stale = config.early_stop is not None and self.epoch - self.best_epoch >= config.early_stop
        return is_stale or self.epoch >= config.epochs


def is_recorded(config: TrainConfig, hardware: Hardware) -> bool:
    """Whether steps are recorded as CUDA graphs. Raises UserError if the user asked for it and the hardware cannot."""
    is_possible = hardware.device.type == "cuda" and hardware.world_size == 1 and not hardware.accelerator.scaler
    if config.cuda_graph and not is_possible:
        raise UserError("--cuda-graph needs one process on an NVIDIA GPU, in bf16 or fp32", "leave it out")
    return is_possible and config.wants_cuda_graph


def prepare(config: TrainConfig, hardware: Hardware, data: DataSet) -> Setup:
    """Build model, optimizer and data on the device, from `config.seed`. Called on every process."""
    accelerator, device, dtype = hardware.accelerator, hardware.device, getattr(torch, config.dtype)
    set_seed(config.seed)  # the same initial weights on every process
    last_batch = len(data.train) % config.batch_size or config.batch_size
    part = max(1, last_batch // (hardware.world_size * config.gradient_accumulation_steps))
    module = architectures.build(config.model, classes=len(data.class_names), dropout=config.dropout, part=part)
    module = module.to(device, dtype).to(memory_format=torch.channels_last)  # in which convolutions are faster
    speed.prepare_model(module, device, config.speedups)
    optimizer = build_optimizer(module, config)
    bad_numbers = BadNumbers(optimizer, hardware)
    replay = speed.prepare_replay(optimizer, device, is_recorded(config, hardware))
    # Without placement, because Accelerate would import torch's distributed tensors for it, which takes 0.6 s.
    model = accelerator.prepare(module, device_placement=[False])
    if accelerator.scaler is not None:  # without a scaler Accelerate's wrapper only costs 0.3 ms a step
        optimizer = accelerator.prepare(optimizer)
    train, test = (InputPipeline(digits, device, dtype) for digits in (data.train, data.test))
    held_out = InputPipeline(data.validation, device, dtype) if data.validation else None
    augment = Augmentation(config, len(train), background=-architectures.MEAN / architectures.STD, device=device)
    average = WeightAverage(module, config.average) if config.average else None
    setup = Setup(
        config, hardware, model, module, optimizer, bad_numbers, replay, train, test, held_out, augment, average
    )
    if hardware.world_size > 1:
        first = train.batch(slice(0, 1))[0]
        setup.exchange = speed.prepare_exchange(model, first, config.timeout, config.speedups)
        optimizer.zero_grad()
    set_seed(config.seed, device_specific=True)  # different dropout on each process
    return setup
