"""Records the first steps of a run, so that two runs can be compared step by step and layer by layer.

A trace is a file of JSON lines: a `Header`, then a `Step` for each optimizer step. The summary of a tensor is the list
[checksum, sum of squares, projection 1, …, projection 32]. The checksum is the sum of the bit patterns. A projection is
the sum of all elements with random signs, so the mean square of the differences of two traces' projections estimates
the sum of squares of the tensors' difference (Johnson & Lindenstrauss, 1984). All these are sums over samples: those of
several processes add up to those of one.
"""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor

from mnist_accel import speed
from mnist_accel.errors import UserError
from mnist_accel.files import atomic, run_record
from mnist_accel.files.untrusted import read_limited, refusing
from mnist_accel.hardware.accelerator import Hardware
from mnist_accel.training.events import Observer, RunFacts
from mnist_accel.training.setup import Setup

FORMAT_VERSION, PROJECTIONS, LARGEST_TRACE = 1, 32, 2**28
ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "tf32": 2.0**-11, "fp16": 2.0**-11, "bf16": 2.0**-8}
"""The largest relative rounding error of one operation, by precision."""

Summary = list[int | float]


class Header(BaseModel):
    """A run's settings, hardware, versions and `precision` (a key of `ROUNDING`); the class of each layer by name."""

    format_version: int = Field(le=FORMAT_VERSION)
    facts: dict[str, Any]
    layers: dict[str, str]


class Step(BaseModel, ser_json_inf_nan="constants"):
    """One optimizer step. The tables go in the order of the computation; gradients in that of the weights."""

    step: int = 0  # counted from 1 over all epochs
    samples: list[int] = []  # indices into the training set, in the order of the global batch
    loss: float = 0.0  # the sum over the samples
    lr: float = 0.0
    gradient_norm: float = 0.0
    batch: dict[str, Summary] = {}  # of the network's images and labels
    weights: dict[str, Summary] = {}  # before the step
    activations: dict[str, Summary] = {}  # outputs of the layers, then of the network ("logits")
    gradients: dict[str, Summary] = {}  # averaged over the processes, as the optimizer gets them
    updates: dict[str, Summary] = {}  # the change of the weights by this step


@functools.cache
def signs(count: int, seed: int) -> Tensor:
    """Random signs (count, PROJECTIONS), float64; the first rows are the same for each `count`."""
    bits = np.random.default_rng(seed).integers(0, 2, (count, PROJECTIONS), dtype=np.int8)
    return torch.from_numpy(bits * 2.0 - 1)


def summary(values: Tensor, rows: Tensor) -> Summary:
    """Summarise a tensor (N, …); `rows` (N, PROJECTIONS) are the signs of its rows."""
    values = values.detach()
    values = (values.to_dense() if values.is_mkldnn else values).cpu()
    values = values.reshape(len(values), math.prod(values.shape[1:])).contiguous()
    checksum = values.view(getattr(torch, f"int{8 * values.element_size()}")).sum(dtype=torch.int64)
    values = values.double()
    projections = (values @ signs(values.shape[1], 1) * rows).sum(dim=0)
    return [int(checksum), float(values.square().sum()), *projections.tolist()]


def added(first: Summary, second: Summary) -> Summary:
    """The summary of two parts of a batch."""
    return [a + b for a, b in zip(first, second, strict=True)]


class Tracer(Observer):
    """Writes the first `steps` steps of a run to `path`, on the main process, as a whole file after each step."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps_left = path, steps
        self.lines: list[str] = []
        self.current: Step | None = None
        self.epoch = 0

    def run_prepared(self, setup: Setup) -> None:
        hardware = setup.hardware
        hardware.together(lambda: atomic.require_writable(self.path.parent, "--trace") if hardware.is_main else None)
        self.setup, self.parameters = setup, dict(setup.module.named_parameters())
        self.gather = setup.train_data.batch
        setup.train_data.batch = self._batch  # type: ignore[method-assign]
        optimizer = getattr(setup.optimizer, "optimizer", setup.optimizer)  # fp16's is wrapped
        setup.replay = speed.stop_replay(optimizer)  # a replay calls no hooks
        self.hooks = [
            optimizer.register_step_pre_hook(lambda *_: self._gradients()),
            setup.model.register_forward_pre_hook(lambda _, images: self._add("batch", "images", *images)),
            setup.model.register_forward_hook(lambda *values: self._add("activations", "logits", values[-1])),
        ]
        for name, module in setup.module.named_modules():
            if not setup.config.compile and not any(module.children()):  # compiled layers cannot be observed
                hook = functools.partial(lambda name, *values: self._add("activations", name, values[-1]), name)
                self.hooks.append(module.register_forward_hook(hook))

    def run_started(self, facts: RunFacts) -> None:
        known = {name: getattr(facts, name) for name in ("device_name", "threads", "world_size", "exchange")}
        known |= {"precision": precision(self.setup.hardware, self.setup.config.dtype)} | run_record.versions()
        layers = {name: type(layer).__name__.lstrip("_") for name, layer in self.setup.module.named_modules()}
        header = Header(format_version=FORMAT_VERSION, facts=dict(facts.settings) | known, layers=layers)
        self.lines.append(header.model_dump_json())

    def epoch_started(self, epoch: int, step: int) -> None:  # noqa: ARG002
        self.epoch = epoch

    def step_finished(self, step: int, sums: Tensor) -> None:
        if self.current is None:
            return
        current, hardware = self.current, self.setup.hardware
        current.step = self.epoch * self.setup.steps_per_epoch + step + 1
        current.loss, current.lr = float(sums[0, step]), float(self.setup.optimizer.param_groups[0]["lr"])
        current.updates = self._of_parameters(lambda name, value: value.cpu().double() - self.before[name])
        self.current = None
        self.lines.append(merged(hardware.gather((current, self.parts))).model_dump_json())
        content = "".join(f"{line}\n" for line in self.lines).encode()
        hardware.together(lambda: atomic.publish({self.path: content}) if hardware.is_main else None)
        self.steps_left -= 1
        if not self.steps_left:
            del self.setup.train_data.batch  # the method of the class again
            for hook in self.hooks:
                hook.remove()

    def _batch(self, indices: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Gather a part of a batch, as `InputPipeline.batch` does. The first part of a step begins its record."""
        assert isinstance(indices, Tensor)
        if self.current is None:
            self.current, self.parts = Step(), list[list[int]]()
            self.before = {name: value.detach().cpu().double().clone() for name, value in self.parameters.items()}
            self.current.weights = self._of_parameters(lambda _, value: value)
        self.parts.append(indices.tolist())
        self.rows = signs(len(self.setup.train_data), 2)[indices.cpu()]
        images, labels = self.gather(indices)
        self._add("batch", "labels", labels)
        return images, labels

    def _add(self, table: str, name: str, values: Any) -> None:
        """Add values of the samples of a part of a batch. Outside of a traced step, as in an evaluation, do nothing."""
        if self.current is not None and isinstance(values, Tensor) and len(values) == len(self.rows):
            found, own = getattr(self.current, table), summary(values, self.rows)
            found[name] = added(found[name], own) if name in found else own

    def _gradients(self) -> None:
        assert self.current is not None
        scaler = self.setup.hardware.accelerator.scaler
        scale = 1.0 if scaler is None else scaler.get_scale()
        self.current.gradients = self._of_parameters(
            lambda _, value: torch.zeros_like(value) if value.grad is None else value.grad / scale
        )

    def _of_parameters(self, value: Callable[[str, Tensor], Tensor]) -> dict[str, Summary]:
        one = torch.ones(1, PROJECTIONS, dtype=torch.float64)
        return {name: summary(value(name, parameter)[None], one) for name, parameter in self.parameters.items()}


def merged(of_ranks: list[tuple[Step, list[list[int]]]]) -> Step:
    """One step from those of all processes, each with its samples by accumulation step."""
    (whole, _), *others = of_ranks
    parts = zip(*(samples for _, samples in of_ranks), strict=True)
    whole.samples = [sample for part in parts for of_rank in part for sample in of_rank]
    whole.gradient_norm = math.sqrt(sum(values[1] for values in whole.gradients.values()))
    for other, _ in others:
        whole.loss += other.loss
        for table, found in ((whole.batch, other.batch), (whole.activations, other.activations)):
            table |= {name: added(table[name], values) for name, values in found.items()}
    return whole


def precision(hardware: Hardware, dtype: str) -> str:
    """The coarsest precision of the forward pass; a key of `ROUNDING`."""
    has_tf32 = hardware.device.type == "cuda" and torch.backends.cudnn.allow_tf32
    own = "tf32" if has_tf32 and dtype == "float32" else dtype
    return own if hardware.mixed_precision == "no" else hardware.mixed_precision


def read(path: Path) -> tuple[Header, list[Step]]:
    """The header and the steps of a trace. Raises UserError if there is no such file, or it is of a later version."""
    with refusing(UserError, f"{path}: not a trace", "give a file that train --trace wrote"):
        header, *steps = read_limited(path, LARGEST_TRACE).splitlines()
        return Header.model_validate_json(header), [Step.model_validate_json(step) for step in steps]
