"""Recorded steps, with a stand-in for CUDA graphs that runs the same operations on the same tensors again."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_accel import TrainConfig, UserError
from mnist_accel.hardware.signals import StopRequests
from mnist_accel.speed import cuda_graph
from mnist_accel.speed.cuda_graph import WARM_UP_STEPS, Recordings, call, step_in_pieces
from mnist_accel.training import train
from mnist_accel.training.events import Observer
from mnist_accel.training.guard import Guard
from mnist_accel.training.loop import fit
from mnist_accel.training.setup import Progress, is_recorded, prepare
from tests.conftest import SMALL_MNIST


def tensors_in(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


class Recorder(TorchDispatchMode):
    """Runs operations and keeps them: numbers as they are now, tensors by reference."""

    def __init__(self, operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]]) -> None:
        TorchDispatchMode.__init__(self)
        self.operations = operations

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, tensors_in(result)))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, outputs in self.operations:
            for output, new in zip(outputs, tensors_in(function(*args, **kwargs)), strict=True):
                if output.data_ptr() != new.data_ptr():  # neither a view nor computed in place
                    output.copy_(new)


class CpuGraphs:
    """Recordings of steps on the CPU."""

    def __init__(self, state: Callable[[], list[Tensor]]) -> None:
        self.state, self.recorded, self.replayed = state, 0, 0

    def record(self, step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """A CUDA graph computes nothing while it is recorded, so what the step changes is put back."""
        tensors = self.state()
        before, random = [tensor.clone() for tensor in tensors], torch.get_rng_state()
        recorder = Recorder([])
        with recorder:
            result = step()
        for tensor, value in zip(tensors, before, strict=True):
            tensor.data.copy_(value)
        torch.set_rng_state(random)
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            recorder.replay()

        return replay, result


def trained(folder: Path, *, replays: bool, **settings: Any) -> tuple[dict[str, Tensor], list[float], CpuGraphs]:
    """The weights and the losses of the steps after three epochs of 12 steps, the last one with fewer samples."""
    settings |= {"dataset": SMALL_MNIST, "train_samples": 375, "batch_size": 32, "epochs": 3, "threads": 1}
    # Without speedups, because tensors in oneDNN's layout cannot be copied in place.
    config = TrainConfig(cpu=True, mixed_precision="no", output_dir=folder, speedups=False, **settings)
    hardware = train.start(config)
    observer = Observer()
    dataset = train.split(
        config, train.load_data(config.dataset, config.data_dir, hardware, observer, skip_damaged=False)
    )
    setup = prepare(config, hardware, dataset)
    for group in setup.optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)

    def state() -> list[Tensor]:
        moments = tensors_in(setup.optimizer.state_dict()["state"])
        return [*setup.module.parameters(), *setup.module.buffers(), *moments, setup.bad_numbers.found]

    graphs = CpuGraphs(state)
    setup.replay = Recordings() if replays else call
    progress = Progress()
    with mock.patch.object(cuda_graph, "record", graphs.record):
        fit(setup, progress, observer, Guard(config, {}, StopRequests(), observer))
    weights = setup.final_module.state_dict()
    return {name: value.clone() for name, value in weights.items()}, progress.step_losses.tolist(), graphs


@pytest.mark.parametrize(
    "settings",
    [
        {"recipe": "classic"},
        {"recipe": "speedrun"},
        {"recipe": "accurate"},
        {"recipe": "classic", "gradient_accumulation_steps": 3},
    ],
    ids=["classic", "one cycle", "batch normalisation, augmentation, average", "accumulation"],
)
def test_replayed_steps_give_the_bits_of_called_ones(tmp_path: Path, settings: dict[str, Any]) -> None:
    weights, losses, _ = trained(tmp_path, replays=False, **settings)
    replayed_weights, replayed_losses, graphs = trained(tmp_path, replays=True, **settings)
    assert replayed_losses == losses
    assert all(torch.equal(replayed_weights[name], value) for name, value in weights.items())
    steps, whole_batches = 3 * 12, 3 * 11
    assert graphs.recorded == 1  # the short batches of three epochs are all called
    assert graphs.replayed == whole_batches - WARM_UP_STEPS
    assert len(losses) == steps


def test_each_batch_size_has_a_recording_of_its_own() -> None:
    graphs = CpuGraphs(list)
    recordings = Recordings()
    with mock.patch.object(cuda_graph, "record", graphs.record):
        for number in range(10):
            for size in (4, 3):
                batch = torch.arange(size) + number
                assert recordings(lambda samples: samples * 2, batch).tolist() == (batch * 2).tolist()
    assert (graphs.recorded, graphs.replayed) == (2, 2 * (10 - WARM_UP_STEPS))


@pytest.mark.parametrize("found_inf", [0.0, 1.0])
def test_an_update_in_pieces_gives_the_bits_of_torchs_own(found_inf: float) -> None:
    """If this fails, torch's private fused update has changed: see `step_in_pieces`."""
    torch.manual_seed(0)
    shapes = ((32, 1, 3, 3), (32, 16, 3, 3), (300, 100), (10,))
    weights = [
        torch.randn(shape).to(memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format)
        for shape in shapes
    ]
    found = []
    for in_pieces in (False, True):
        parameters = [torch.nn.Parameter(weight.clone()) for weight in weights]
        optimizer = torch.optim.Adam(parameters, lr=0.01, fused=True)
        generator = torch.Generator().manual_seed(1)
        for step in range(4):
            optimizer.found_inf = torch.tensor(found_inf if step == 2 else 0.0)  # type: ignore[attr-defined]
            for parameter in parameters:
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = torch.empty_like(parameter).copy_(gradient)  # in the parameter's layout, as autograd's
            step_in_pieces(optimizer, optimizer.step) if in_pieces else optimizer.step()
        moments = [tensor for state in optimizer.state.values() for tensor in state.values()]
        found.append([*(parameter.detach() for parameter in parameters), *moments])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_cuda_graphs_are_refused_without_an_nvidia_gpu(tmp_path: Path) -> None:
    config = TrainConfig(dataset=SMALL_MNIST, cpu=True, cuda_graph=True, output_dir=tmp_path)
    with pytest.raises(UserError, match="NVIDIA"):
        train.run_training(config, Observer())


@pytest.mark.parametrize(
    ("settings", "device", "world_size", "expected"),
    [
        ({}, "cuda", 1, True),
        ({"cuda_graph": False}, "cuda", 1, False),
        ({"compile": True}, "cuda", 1, False),
        ({"compile": True, "cuda_graph": True}, "cuda", 1, True),
        ({"model": "net.py:Net"}, "cuda", 1, False),
        ({"model": "net.py:Net", "cuda_graph": True}, "cuda", 1, True),
        ({}, "cuda", 2, False),
        ({}, "cpu", 1, False),
        ({}, "mps", 1, False),
    ],
)
def test_steps_are_recorded_where_that_is_known_to_work(
    settings: dict[str, Any], device: str, world_size: int, expected: bool
) -> None:
    accelerator = SimpleNamespace(scaler=None)
    hardware: Any = SimpleNamespace(device=torch.device(device), world_size=world_size, accelerator=accelerator)
    assert is_recorded(TrainConfig(**settings), hardware) is expected
