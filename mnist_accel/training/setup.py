"""The objects that the training loop works on, and the position of a run."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from mnist_accel import speed
from mnist_accel.config.settings import TrainConfig
from mnist_accel.data.augmentation import Augmentation
from mnist_accel.data.batches import InputPipeline
from mnist_accel.data.digits import DataSet, Digits
from mnist_accel.data.sample_order import steps_per_epoch
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.models import architectures
from mnist_accel.models.normalisation import MEAN, STD
from mnist_accel.training.bad_numbers import BadNumbers
from mnist_accel.training.events import EpochRecord
from mnist_accel.training.optimizer import WeightAverage, build_optimizer


@dataclass
class Setup:
    """Everything that the training loop works on.

    Attributes:
        model: as Accelerate prepared it: with autocast, and with wrappers that compile and exchange gradients.
        module: the model without wrappers.
        validation_data: the held-out training samples, or None.
        weight_average: None where the recipe keeps no average.
        exchange: how processes exchange gradients; empty for one process.
    """

    config: TrainConfig
    hardware: Hardware
    model: nn.Module
    module: nn.Module
    optimizer: torch.optim.Optimizer
    train_data: InputPipeline
    validation_data: InputPipeline | None
    test_data: InputPipeline
    augment: Augmentation
    bad_numbers: BadNumbers
    weight_average: WeightAverage | None = None
    exchange: str = ""

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.train_data), self.config.batch_size)

    @property
    def final_module(self) -> nn.Module:
        """The module that is evaluated and saved: the average of the weights where one is kept."""
        return self.weight_average.module if self.weight_average else self.module

    def empty_sums(self) -> Tensor:
        """`Progress.sums` before the first step, in float64 where the device has it (Apple's GPUs do not)."""
        device = self.hardware.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return torch.zeros(3, self.steps_per_epoch, device=device, dtype=dtype)


@dataclass
class Progress:
    """The position of a run, and its figures so far.

    Attributes:
        step: number of finished steps of the current epoch.
        sums: (3, steps) on the device, this process's part of each step of the current epoch: summed cross entropy;
            number of correct predictions; 1 from the first step with a number that is not finite. None before step 1.
        epoch_seconds: time of the training steps of the current epoch so far.
        history: records of the finished epochs.
        step_losses: float32 (steps,), mean cross entropy of each step of the finished epochs.
        best_weights: of the best epoch, on the CPU; empty without held-out samples.
    """

    step: int = 0
    sums: Tensor | None = None
    epoch_seconds: float = 0.0
    history: list[EpochRecord] = field(default_factory=list)
    step_losses: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    best_weights: dict[str, Tensor] = field(default_factory=dict)

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


def prepare(config: TrainConfig, hardware: Hardware, data: DataSet, validation: Digits | None = None) -> Setup:
    """Build model, optimizer and data on the device, from `config.seed`. Called on every process."""
    dtype = getattr(torch, config.dtype)
    set_seed(config.seed)  # the same initial weights on every process
    module = architectures.build(config.model, classes=len(data.class_names), dropout=config.dropout)
    # Convolutions are faster in channels_last.
    module = module.to(hardware.device, dtype).to(memory_format=torch.channels_last)
    speed.prepare_model(module, hardware.device, hardware.speedups)
    optimizer = build_optimizer(module, config)
    bad_numbers = BadNumbers(optimizer, hardware)
    # Without placement, because Accelerate would import torch's distributed tensors for it, which takes 0.6 s.
    model = hardware.accelerator.prepare(module, device_placement=[False])
    if hardware.accelerator.scaler is not None:  # without a scaler Accelerate's wrapper only costs 0.3 ms a step
        optimizer = hardware.accelerator.prepare(optimizer)
    train_data = InputPipeline(data.train, hardware.device, dtype)
    setup = Setup(
        config=config,
        hardware=hardware,
        model=model,
        module=module,
        optimizer=optimizer,
        train_data=train_data,
        validation_data=InputPipeline(validation, hardware.device, dtype) if validation else None,
        test_data=InputPipeline(data.test, hardware.device, dtype),
        augment=Augmentation(config, len(train_data), background=-MEAN / STD),
        bad_numbers=bad_numbers,
    )
    if config.average:
        setup.weight_average = WeightAverage(module, config.average)
    if hardware.world_size > 1:
        setup.exchange = speed.prepare_exchange(
            model, train_data.batch(slice(0, 1))[0], hardware.timeout, hardware.speedups
        )
        optimizer.zero_grad()
    set_seed(config.seed, device_specific=True)  # different dropout on each process
    return setup
