"""`mnist-accel diff`: the first difference of two traces, its size, and its usual cause."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_accel.checks.trace_comparison import Comparison, compare
from mnist_accel.training import trace
from mnist_accel.training.trace import Header

IRRELEVANT = {"data_dir", "output_dir", "keep", "resume", "checkpoint_every", "timeout", "max_restarts", "processes"}
"""Settings that change no number."""
CAUSES = {
    "samples": "The runs train on other samples: another seed, order, subset or batch size, or another division of "
    "each batch among the processes.",
    "labels": "The same samples have other labels: the label files differ, or labels were permuted.",
    "images": "The same samples give other images: the normalisation, the augmentation or the image files differ.",
    "weights": "The weight changed between two steps, outside the optimizer: a fault of the memory, or code that "
    "writes into weights.",
    "first weights": "The runs start from other weights: another seed, initialisation, network or checkpoint.",
    "Dropout": "Dropout draws other random numbers. This is expected with another seed, number of processes or kind of "
    "device. To compare such runs, train both with dropout = 0 in a recipe file.",
    "BatchNorm": "Batch normalisation takes the statistics of each process's part of a batch. This is expected with "
    "another number of processes or accumulation steps; otherwise its kernel or its settings differ.",
    "activations": "The layer computes something else from the same input and weights: another kernel, other settings, "
    "or a lower precision such as TF32.",
    "loss": "The same logits and labels give another loss: the loss function or its reduction differs.",
    "gradients": "The forward pass agrees. The backward pass of this layer or the exchange of gradients differs; a "
    "ratio of norms like the number of processes means that gradients are summed in place of averaged.",
    "learning rate": "The learning rate or its schedule differs.",
    "updates": "Gradients and learning rate agree. The optimizer differs: its kind, its settings, or its moments after "
    "a resume.",
}


@dataclass(frozen=True)
class Diff:
    """The result of a comparison.

    Attributes:
        steps: the number of steps compared, up to and with the one that differs.
        difference: the first one that rounding does not explain; None if the traces are equal up to rounding.
        first_bits: the first one of all; None if all bits are the same.
        largest: the largest one of each quantity.
    """

    headers: tuple[Header, Header]
    steps: int
    difference: Comparison | None
    first_bits: Comparison | None
    largest: dict[str, Comparison]

    def as_json(self) -> dict[str, Any]:
        """The values of `--json`; an infinite size is null."""
        if not (found := self.difference):
            return {"equal": True}
        size = found.size if math.isfinite(found.size) else None
        place = {"step": found.step, "layer": found.layer, "size": size}
        return {"equal": False} | place | {"quantity": found.quantity, "cause": self.usual_cause(found)}

    def lines(self) -> list[str]:
        """The result for people."""
        if found := self.difference:
            lines = [
                f"different from step {found.step} on: {_place(found)}",
                f"relative difference {found.size:.2g}, of which rounding explains {found.tolerance:.2g}; "
                f"ratio of norms {found.ratio:.4g}",
                self.usual_cause(found),
            ]
        else:
            worst = [f"{found.size:.2g} in {_place(found)} of step {found.step}" for found in self.largest.values()]
            lines = [f"equal up to rounding: {self.steps} steps", f"largest differences: {', '.join(worst) or 'none'}"]
        if self.first_bits:
            lines.append(f"the first other bits: step {self.first_bits.step}, {_place(self.first_bits)}")
        facts = [header.facts for header in self.headers]
        names = [name for name in facts[0] if name not in IRRELEVANT and facts[0][name] != facts[1].get(name)]
        return [*lines, *(f"{name}: {facts[0][name]} and {facts[1].get(name)}" for name in names)]

    def usual_cause(self, found: Comparison) -> str:
        """The usual cause of a difference at this place."""
        kind = self.headers[0].layers.get(found.layer, "")
        keys = {"batch": found.layer, "weights": "first weights" if self.steps == 1 else "weights"}
        if found.quantity == "activations":
            return CAUSES[next((name for name in ("Dropout", "BatchNorm") if name in kind), "activations")]
        return CAUSES[keys.get(found.quantity, found.quantity)]


def diff_traces(first: Path, second: Path) -> Diff:
    """Compare two traces up to the first step and layer in which they differ by more than rounding explains.

    Raises:
        UserError: a file is no trace, or the traces share no step.
    """
    one, other = trace.read(first), trace.read(second)
    first_bits, largest, steps = None, dict[str, Comparison](), set[int]()
    for found in compare(one, other):
        steps.add(found.step)
        if not found.is_same:
            first_bits = first_bits or found
        if not found.is_equal:
            return Diff((one[0], other[0]), len(steps), found, first_bits, largest)
        if found.size and (found.quantity not in largest or found.size > largest[found.quantity].size):
            largest[found.quantity] = found
    return Diff((one[0], other[0]), len(steps), None, first_bits, largest)


def _place(found: Comparison) -> str:
    return found.quantity if found.quantity == found.layer else f"{found.quantity} of {found.layer}"
