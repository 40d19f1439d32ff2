"""Replays training steps as CUDA graphs: the GPU gets all kernels of a step at once, instead of one after another."""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Of each batch size: they allocate the optimizer's state, and cuDNN and cuBLAS choose their kernels."""

Step = Callable[[Tensor], Tensor]
Replay = Callable[[Step, Tensor], Tensor]
"""Computes a step for a batch: calls it, or replays a recorded call with a batch of the same size."""


def call(step: Step, batch: Tensor) -> Tensor:
    """The `Replay` that records nothing."""
    return step(batch)


def prepare_replay(optimizer: torch.optim.Optimizer, device: torch.device, enabled: bool) -> Replay:
    """The way to compute the steps of an optimizer. If they are recorded, its learning rate lies in a tensor."""
    if not enabled:
        return call
    for group in optimizer.param_groups:
        group |= {"lr": torch.tensor(group["lr"], device=device), "capturable": True}
    return Recordings(on_own_stream, record)


class Recordings:
    """A `Replay` with one recording for each batch size; the last batch of an epoch may be smaller than the others.

    Args:
        warm_up: calls its argument.
        record: computes nothing; returns a function that replays its argument, and the tensor that gets the result.
    """

    def __init__(
        self,
        warm_up: Callable[[Callable[[], Tensor]], Tensor],
        record: Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]],
    ) -> None:
        self.warm_up, self.record = warm_up, record
        self.steps: Counter[int] = Counter()
        self.recordings: dict[int, tuple[Callable[[], None], Tensor, Tensor]] = {}

    def __call__(self, step: Step, batch: Tensor) -> Tensor:
        size = len(batch)
        self.steps[size] += 1
        if self.steps[size] <= WARM_UP_STEPS:
            return self.warm_up(lambda: step(batch))
        if size not in self.recordings:
            recorded = batch.clone()
            self.recordings[size] = (*self.record(lambda: step(recorded)), recorded)
        replay, result, recorded = self.recordings[size]
        recorded.copy_(batch)
        replay()
        return result


def on_own_stream(step: Callable[[], Tensor]) -> Tensor:
    """Compute a step outside of the default stream, whose autograd nodes could not be recorded."""
    stream, default = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(default)
    with torch.cuda.stream(stream):
        result = step()
    default.wait_stream(stream)
    return result


def record(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record a step as a CUDA graph. Random numbers go on from replay to replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()
    return graph.replay, result
