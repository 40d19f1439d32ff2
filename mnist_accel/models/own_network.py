"""Networks of the user's own, named "FILE.py:CLASS" or "package.module:CLASS"."""

import copy
import functools
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from mnist_accel.errors import UserError, printable


@functools.cache
def load_class(name: str) -> tuple[Any, str]:
    """The class `name` and the SHA-256 of the file that defines it. The file is imported: its code runs."""
    place, _, class_name = name.rpartition(":")
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        found = functools.reduce(getattr, class_name.split("."), module)
        source = getattr(module, "__file__", None)
    except Exception as error:  # code of the user can raise anything
        reason = f"{type(error).__name__}: {printable(error, 150)}"
        hint = "give FILE.py:CLASS or MODULE:CLASS"
        raise UserError(f"--model {name}: cannot be imported ({reason})", hint) from error
    return found, hashlib.sha256(Path(source).read_bytes()).hexdigest() if source else ""


def _import_file(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(path.stem, module)  # so that its objects can be pickled
    specification.loader.exec_module(module)
    return module


def build(name: str, classes: int) -> nn.Module:
    """A new network. Raises UserError if it cannot be built with `classes=` alone, or does not meet `check`."""
    network = load_class(name)[0]
    try:
        model = network(classes=classes)
    except Exception as error:  # code of the user can raise anything
        reason = f"{type(error).__name__}: {printable(error, 150)}"
        hint = "it must accept one argument, classes="
        raise UserError(f"--model {name}: cannot be built ({reason})", hint) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"--model {name}: makes a {type(model).__name__}", "name a subclass of torch.nn.Module")
    with torch.random.fork_rng():
        check(copy.deepcopy(model), classes, name)
    return model


def check(model: nn.Module, classes: int, name: str) -> None:
    """Raise a UserError unless `model` turns images (B, 1, 28, 28) into logits (B, classes) as training needs it.

    Every parameter must get a gradient, because processes exchange all gradients in each step. In evaluation mode the
    same images must give the same logits.
    """
    images = torch.rand(2, 1, 28, 28)
    try:
        logits = model.train()(images)
        if tuple(logits.shape) != (2, classes):
            raise ValueError(f"images (2, 1, 28, 28) give {tuple(logits.shape)}, not (2, {classes})")
        logits.sum().backward()
        unused = [key for key, value in model.named_parameters() if value.requires_grad and value.grad is None]
        if unused:
            names = printable(", ".join(unused), 100)
            raise ValueError(f"no gradient for {names}; use them, or set requires_grad=False")
        model.eval()
        if not torch.equal(model(images), model(images)):
            raise ValueError("in evaluation mode the same images give other logits each time")
    except Exception as error:  # code of the user can raise anything
        reason = printable(error, 200) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UserError(f"--model {name}: {printable(reason)}", "see docs/your-own-network.md") from error
