"""Replays training steps as CUDA graphs: the GPU gets all kernels of a step at once, instead of one after another."""

import functools
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_STEPS = 3  # of each batch size: they allocate the optimizer's state, and cuDNN and cuBLAS choose their kernels
PIECE = 4096  # elements of a piece of a parameter

Step = Callable[[Tensor], Tensor]
Replay = Callable[[Step, Tensor], Tensor]  # calls a step for a batch, or replays a call with a batch of the same size


def call(step: Step, batch: Tensor) -> Tensor:
    """The `Replay` that records nothing."""
    return step(batch)


def prepare_replay(optimizer: torch.optim.Adam, device: torch.device, enabled: bool) -> Replay:
    """The way to compute the steps of an optimizer. If they are recorded, its learning rate lies in a tensor."""
    if not enabled:
        return call
    for group in optimizer.param_groups:
        group |= {"lr": torch.tensor(group["lr"], device=device), "capturable": True}
    optimizer.step = functools.partial(step_in_pieces, optimizer, optimizer.step)  # type: ignore[method-assign]
    return Recordings()


def stop_replay(optimizer: torch.optim.Optimizer) -> Replay:
    """Undo `prepare_replay`: from now on, steps are called, with torch's own update, which calls the hooks."""
    vars(optimizer).pop("step", None)
    return call


@torch.no_grad()
def step_in_pieces(optimizer: torch.optim.Adam, whole_step: Callable[[], None]) -> None:
    """Adam's fused update with each parameter cut into pieces; the same bits as torch's, `whole_step`.

    The kernel gives 65,536 elements to one block, so that a small network occupies a tenth of a GPU. Cutting takes time
    on the CPU, so it pays only for recorded steps. `_fused_adam_` is private: torch's fused Adam would replace this
    function if its kernel used smaller parts.
    """
    if not optimizer.state:  # torch's own step allocates the moments
        whole_step()
        return
    (group,) = optimizer.param_groups
    found_inf = optimizer.found_inf  # type: ignore[attr-defined]
    counted = 1 - found_inf
    pieces: list[tuple[Tensor, ...]] = []  # of a parameter, its gradient and its moments, with the number of its step
    for parameter in group["params"]:
        if parameter.grad is not None:
            state = optimizer.state[parameter]
            # _foreach_add_ with one tensor for all waits for the device, which cannot be recorded
            step = state["step"].add_(counted)
            tensors = (parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"])
            # A dense tensor is cut in the order in which it lies in memory.
            cut = [tensor.as_strided((tensor.numel(),), (1,)).split(PIECE) for tensor in tensors]
            pieces += [(*piece, step) for piece in zip(*cut, strict=True)]
    values, gradients, means, squares, steps = map(list, zip(*pieces, strict=True))
    torch._fused_adam_(
        *(values, gradients, means, squares, [], steps),
        lr=group["lr"],
        beta1=group["betas"][0],
        beta2=group["betas"][1],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
        found_inf=found_inf,
    )


class Recordings:
    """A `Replay` with one recording for each batch size; the last batch of an epoch may be smaller than the others."""

    def __init__(self) -> None:
        self.steps: Counter[int] = Counter()
        self.recordings: dict[int, tuple[Callable[[], None], Tensor, Tensor]] = {}

    def __call__(self, step: Step, batch: Tensor) -> Tensor:
        size = len(batch)
        self.steps[size] += 1
        if self.steps[size] <= WARM_UP_STEPS:
            return step(batch)
        if size not in self.recordings:
            recorded = batch.clone()
            self.recordings[size] = (*record(lambda: step(recorded)), recorded)
        replay, result, recorded = self.recordings[size]
        recorded.copy_(batch)
        replay()
        return result


def record(step: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """Record a step as a CUDA graph, without computing it: its replay, with new random numbers, and its result."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        result = step()
    return graph.replay, result
