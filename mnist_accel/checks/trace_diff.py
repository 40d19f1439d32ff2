"""`mnist-accel diff`: the first step and layer in which two traces differ by more than rounding explains.

Each tensor is compared with the tensors that it was computed from, in the order of the computation. Its tolerance
follows from their measured differences and from the coarser rounding of the two runs, so it grows as they grow.
docs/certify.md explains the tolerances and names the measurements behind the constants.
"""

import math
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_accel.errors import UserError
from mnist_accel.reports import runs
from mnist_accel.reports.tables import differing
from mnist_accel.training import trace
from mnist_accel.training.trace import ROUNDING, Header, Step, Summary

CAUSES: dict[str, str] = tomllib.loads(Path(__file__).with_name("explanations.toml").read_text("utf-8"))["causes"]
IRRELEVANT = {*runs.IRRELEVANT, "processes"} - {"seed", "fold"}

ROUNDED, ADDED, SUMMED, STATISTICS = 8, 24, 64, 16384
"""In unit roundoffs: of a layer in its precision, and in that of the weights; of a sum over a batch; in batch norm."""
LARGEST_GAIN, LEAST_GAIN, GAIN_GROWTH, GAIN_STEPS = 16, 6, 5, 4
"""A difference is at most its cause times the largest gain; after some steps, times a few of its gains so far."""
SWITCH, SWITCH_CAUSE = 0.02, 1e-6
"""One ReLU or maximum that rounding switches changes a gradient by this much; in float64 rounding switches none."""
KEPT = 1e-11  # weights are those before the last step plus its update; relative rounding error of their summaries
GROWN_APART = 0.9  # gradients and updates of two runs that have grown apart still have norms of the same order

Explanation = Callable[[str, Summary, Summary], tuple[float, float]]
"""The relative difference that a tensor's inputs give it at gain 1, and that of its rounding."""


@dataclass(frozen=True)
class Comparison:
    """One quantity of one step in both traces."""

    step: int
    quantity: str
    layer: str  # the layer or weight, or the name of the quantity
    size: float  # norm of the difference divided by the larger norm; for samples, the share that differs
    tolerance: float  # the largest size that rounding explains
    ratio: float  # norm in the second trace divided by that in the first
    is_same: bool  # whether the bits are the same

    @property
    def place(self) -> str:
        return self.quantity if self.quantity == self.layer else f"{self.quantity} of {self.layer}"


@dataclass(frozen=True)
class Diff:
    """The result of a comparison."""

    headers: tuple[Header, Header]
    steps: int  # the number of steps compared, up to and with the one that differs
    difference: Comparison | None  # the first one that rounding does not explain
    first_bits: Comparison | None  # the first one with other bits

    def as_json(self) -> dict[str, Any]:
        """The values of `--json`; an infinite size is null."""
        if not (found := self.difference):
            return {"equal": True}
        size = found.size if math.isfinite(found.size) else None
        place = {"step": found.step, "layer": found.layer, "size": size}
        return {"equal": False} | place | {"quantity": found.quantity, "cause": self.usual_cause(found)}

    def lines(self) -> list[str]:
        """The result for people."""
        lines = [f"equal up to rounding: {self.steps} steps"]
        if found := self.difference:
            lines = [
                f"different from step {found.step} on: {found.place}",
                f"relative difference {found.size:.2g}, of which rounding explains {found.tolerance:.2g}; "
                f"ratio of norms {found.ratio:.4g}",
                self.usual_cause(found),
            ]
        if self.first_bits:
            lines.append(f"the first other bits: step {self.first_bits.step}, {self.first_bits.place}")
        facts = differing(*(header.facts for header in self.headers))
        lines += [f"{name}: {one} and {other}" for name, (one, other) in facts.items() if name not in IRRELEVANT]
        return lines

    def usual_cause(self, found: Comparison) -> str:
        """The usual cause of a difference at this place."""
        kind = self.headers[0].layers.get(found.layer, "")
        keys = {"batch": found.layer, "weights": "first weights" if self.steps == 1 else "weights"}
        if found.quantity == "activations":
            return CAUSES[next((name for name in ("Dropout", "BatchNorm") if name in kind), "activations")]
        return CAUSES[keys.get(found.quantity, found.quantity)]


def diff_traces(first: Path, second: Path) -> Diff:
    """Compare two traces up to the first step and layer in which they differ by more than rounding explains.

    Raises UserError if a file is no trace, or the traces share no step.
    """
    one, other = trace.read(first), trace.read(second)
    first_bits, steps = None, set[int]()
    for found in compare(one, other):
        steps.add(found.step)
        first_bits = first_bits or (None if found.is_same else found)
        if found.size and not found.size <= found.tolerance:
            return Diff((one[0], other[0]), len(steps), found, first_bits)
    return Diff((one[0], other[0]), len(steps), None, first_bits)


def compare(first: tuple[Header, list[Step]], second: tuple[Header, list[Step]]) -> Iterator[Comparison]:
    """Compare the steps that two traces share, in the order of the computation. Raises UserError if there is none."""
    others = {step.step: step for step in second[1]}
    pairs = [(step, others[step.step]) for step in first[1] if step.step in others]
    if not pairs:
        raise UserError("the two traces have no step in common", "trace the same steps of both runs")
    return _Pair(first[0], second[0]).comparisons(pairs)


class _Pair:
    """Two traces, compared step by step. Errors are relative, and the largest ones of one operation."""

    def __init__(self, first: Header, second: Header) -> None:
        self.rounding = max(ROUNDING[header.facts["precision"]] for header in (first, second))  # in the forward pass
        self.fine = max(ROUNDING[header.facts["dtype"]] for header in (first, second))  # with weights
        self.layers = first.layers
        self.statistics = STATISTICS * self.fine * any("BatchNorm" in kind for kind in first.layers.values())
        self.grown: dict[str, float] = {}  # the largest difference of each gradient so far
        self.gains: defaultdict[tuple[str, str], list[float]] = defaultdict(list)  # difference by cause, each step
        self.moved: dict[str, npt.NDArray[np.float64]] = {}  # distance of each weight's projections after the last step

    def comparisons(self, pairs: list[tuple[Step, Step]]) -> Iterator[Comparison]:
        for self.a, self.b in pairs:
            self.sizes: dict[str, dict[str, float]] = {}  # found in this step, by quantity and layer
            yield self._samples()
            yield from self._table("batch", lambda name, *_: (0.0, SUMMED * self.fine * (name == "images")))
            yield from self._weights()
            yield from self._table("activations", self._forward)
            yield self._number("loss", self.a.loss, self.b.loss, self._loss())
            yield from self._table("gradients", self._backward)
            for name, size in self.sizes["gradients"].items():
                self.grown[name] = max(size, self.grown.get(name, 0.0))
            yield self._number("learning rate", self.a.lr, self.b.lr, KEPT)
            yield from self._table("updates", self._update)

    def _samples(self) -> Comparison:
        is_other = [one != other for one, other in zip_longest(self.a.samples, self.b.samples)]
        size, ratio = sum(is_other) / len(is_other), len(self.b.samples) / len(self.a.samples)
        return Comparison(self.a.step, "samples", "samples", size, 0.0, ratio, not any(is_other))

    def _number(self, name: str, first: float, second: float, tolerance: float) -> Comparison:
        summaries = ([number, number**2, number] for number in (first, second))
        return self._comparison(name, name, tolerance, *summaries)

    def _comparison(self, quantity: str, layer: str, tolerance: float, ours: Summary, theirs: Summary) -> Comparison:
        size, ratio = difference(ours, theirs), math.sqrt(theirs[1] / ours[1]) if ours[1] else math.inf
        return Comparison(self.a.step, quantity, layer, size, tolerance, ratio, ours[0] == theirs[0])

    def _table(self, quantity: str, explain: Explanation) -> Iterator[Comparison]:
        """Compare the layers that both traces have; gradients backwards."""
        ours, theirs = getattr(self.a, quantity), getattr(self.b, quantity)
        sizes = self.sizes[quantity] = {}
        for name in reversed(ours) if quantity == "gradients" else ours:
            if name in theirs:
                cause, rounding = explain(name, ours[name], theirs[name])
                gains, limit = self.gains[quantity, name], LARGEST_GAIN * cause
                if len(gains) >= GAIN_STEPS:
                    limit = min(limit, max(LEAST_GAIN, GAIN_GROWTH * max(gains)) * cause)
                if quantity == "gradients" and cause > SWITCH_CAUSE:
                    limit = max(limit, SWITCH)
                if min(ours[name][1], theirs[name][1]) < (1 - GROWN_APART) ** 2 * max(ours[name][1], theirs[name][1]):
                    limit = min(limit, GROWN_APART)
                found = self._comparison(quantity, name, limit + rounding, ours[name], theirs[name])
                sizes[name] = found.size
                if cause > rounding:
                    gains.append(found.size / cause)
                yield found

    def _weights(self) -> Iterator[Comparison]:
        """Compare the weights with those of the step before plus its update; a missing one is a difference of 1."""
        for name in self.a.weights.keys() ^ self.b.weights.keys():
            yield Comparison(self.a.step, "weights", name, 1.0, 0.0, math.nan, is_same=False)
        for found in self._table("weights", lambda *_: (0.0, SUMMED * self.fine if self.a.step == 1 else 2.0)):
            name = found.layer
            ours, theirs, update, other = (
                np.array(table[name][2:]) for table in (self.a.weights, self.b.weights, self.a.updates, self.b.updates)
            )
            if name in self.moved:
                norm = math.sqrt(self.a.weights[name][1]) or 1.0
                jump = float(np.sqrt(np.mean((ours - theirs - self.moved[name]) ** 2))) / norm
                yield Comparison(self.a.step, "weights", name, jump, KEPT, found.ratio, found.is_same)
            else:
                yield found
            self.moved[name] = ours - theirs + update - other

    def _forward(self, layer: str, *_: Summary) -> tuple[float, float]:
        """Activations differ as the layers before and the layer's own weights do."""
        before, weights = self.sizes["activations"], self.sizes["weights"]
        is_alone = layer == "logits" and not before  # a compiled network
        own = [size for name, size in weights.items() if is_alone or name.rpartition(".")[0] == layer]
        is_normalising = is_alone or "BatchNorm" in self.layers.get(layer, "")
        rounding = ROUNDED * self.rounding + ADDED * self.fine + self.statistics * is_normalising
        return max([*self.sizes["batch"].values(), *before.values(), *own]), rounding

    def _loss(self) -> float:
        """The cross entropy of one sample changes by at most √2 times the change of its logits."""
        square = max(step.activations["logits"][1] for step in (self.a, self.b))
        moved = self.sizes["activations"]["logits"] * math.sqrt(2 * square * len(self.a.samples))
        return 2 * moved / max(abs(self.a.loss), abs(self.b.loss)) + SUMMED * self.fine

    def _backward(self, _: str, ours: Summary, theirs: Summary) -> tuple[float, float]:
        """Gradients differ as activations do; and a like share of the units switches its ReLU, hence the root."""
        total = max(self.a.gradient_norm, self.b.gradient_norm)
        rounding = 3 * (ROUNDED * self.rounding + SUMMED * self.fine) + 2 * self.rounding * _share(total, ours, theirs)
        apart = max(self.sizes["activations"].values()) + self.statistics
        return math.sqrt(apart) + 2 * apart, rounding

    def _update(self, name: str, ours: Summary, theirs: Summary) -> tuple[float, float]:
        """Adam's first updates are the signs of gradients, hence the root."""
        weights = math.sqrt(self.a.weights[name][1])
        return math.sqrt(self.grown[name]), SUMMED * self.fine + 2 * self.fine * _share(weights, ours, theirs)


def difference(first: Summary, second: Summary) -> float:
    """Estimated norm of the difference of two tensors, divided by the larger norm."""
    if not (math.isfinite(first[1]) and math.isfinite(second[1])):
        return 0.0 if math.isfinite(first[1]) == math.isfinite(second[1]) else math.inf
    (small, large) = sorted((math.sqrt(first[1]), math.sqrt(second[1])))
    apart = math.sqrt(np.mean(np.subtract(first[2:], second[2:]) ** 2))
    return float(np.clip(apart, large - small, large + small) / large) if large else 0.0


def _share(whole: float, ours: Summary, theirs: Summary) -> float:
    """`whole` divided by the norm of a tensor, which makes its rounding error a relative one."""
    return whole / (math.sqrt(max(ours[1], theirs[1])) or math.inf)
