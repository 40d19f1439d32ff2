"""Networks of the user's own, named "FILE.py:CLASS" or "package.module:CLASS"."""

import copy
import functools
import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mnist_accel.errors import UserError, printable
from mnist_accel.files.untrusted import refusing


@functools.cache
def load_class(name: str) -> tuple[Any, str]:
    """The class `name` and the SHA-256 of the file that defines it. The file is imported: its code runs."""
    place, _, class_name = name.rpartition(":")
    with refusing(UserError, f"--model {name}: cannot be imported", "give FILE.py:CLASS or MODULE:CLASS"):
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        source = getattr(module, "__file__", None)
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""
        return functools.reduce(getattr, class_name.split("."), module), digest


def _import_file(path: Path) -> Any:
    specification: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(path.stem, module)  # so that its objects can be pickled
    specification.loader.exec_module(module)
    return module


def build(name: str, classes: int, part: int) -> nn.Module:
    """A new network. Raises UserError if it cannot be built with `classes=` alone, or does not meet `check`."""
    network = load_class(name)[0]
    with refusing(UserError, f"--model {name}: cannot be built", "it must accept one argument, classes="):
        model: nn.Module = network(classes=classes)
    hint = "see docs/your-own-network.md"
    if part == 1:
        hint = f"a process computes 1 image of a batch, so change --batch-size; or {hint}"
    with torch.random.fork_rng(devices=[]), refusing(UserError, f"--model {name}: cannot compute", hint):
        problems = check(copy.deepcopy(model), torch.rand(min(part, 2), 1, 28, 28), classes)
    if problems:
        raise UserError(f"--model {name}: {'; '.join(problems)}", hint)
    return model


def check(model: nn.Module, images: Tensor, classes: int) -> list[str]:
    """The reasons why `model` cannot be trained with the promises of this program; none if it can.

    Every parameter must get a gradient, because processes exchange all gradients in each step. For exact resuming, the
    state must be what a checkpoint holds: parameters, buffers of the state dict, and torch's random numbers.
    """
    if any(isinstance(value, nn.UninitializedParameter) for value in model.parameters()):
        return ["has lazy layers; give their sizes"]
    problems = []
    buffers = {name: buffer.clone() for name, buffer in model.train().named_buffers()}
    torch.manual_seed(0)
    trained = model(images)
    if tuple(trained.shape) != (len(images), classes):
        problems.append(f"images {tuple(images.shape)} give {tuple(trained.shape)}, not {(len(images), classes)}")
    trained.sum().backward()
    unused = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    if unused:
        problems.append(f"no gradient for {printable(', '.join(unused), 100)}; use them, or set requires_grad=False")
    changed = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, buffers[name])}
    if lost := sorted(changed - model.state_dict().keys()):
        problems.append(f"training changes {printable(', '.join(lost), 100)}, but no checkpoint holds such a buffer")
    torch.manual_seed(0)
    if not torch.equal(model(images), trained):
        problems.append("in training the same images give other logits after torch.manual_seed")
    model.eval()
    if not torch.equal(model(images), model(images)):
        problems.append("in evaluation mode the same images give other logits each time")
    return problems


def doubt(name: str, model: nn.Module) -> str:
    """Why several processes may compute something else than one does, although `model` can be trained; or empty."""
    layers = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if ":" not in name or not any(isinstance(layer, layers) for layer in model.modules()):
        return ""
    where = "batch normalisation takes its statistics from the part of a batch that one process computes"
    return f"--model {name}: {where}, so results depend on the number of processes"
