"""The parts of the documents that are made from the code: `just docs` writes them between the markers for cog."""

import dataclasses
import inspect
import os
import re

from pydantic import BaseModel
from typer.main import get_command

import mnist_accel
from mnist_accel.cli import app
from mnist_accel.config.settings import RunConfig, option_name, settings

WIDTH = 100


def command_help() -> str:
    """`--help` of every command, each under its own heading."""
    os.environ.pop("COLUMNS", None)
    parent = get_command(app)
    parts = []
    for name, command in parent.commands.items():  # type: ignore[attr-defined]
        context = command.make_context(name, ["--help"], resilient_parsing=True, max_content_width=WIDTH)
        context.terminal_width, context.info_name = WIDTH, f"mnist-accel {name}"
        text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.MULTILINE)
        parts.append(f"### `mnist-accel {name}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def api_reference() -> str:
    """Every public name with its signature and docstring."""
    parts = []
    for name in sorted(mnist_accel.__all__, key=str.lower):
        found = getattr(mnist_accel, name)
        parts.append(f"## `{name}`\n\n```text\n{signature(name, found)}\n```\n\n{docstring(found)}\n{fields(found)}")
        if isinstance(found, type) and issubclass(found, RunConfig):
            parts.append(table_of_settings(found))
        elif isinstance(found, type):
            for member in public_members(found):
                whole = f"{name}.{member}"
                value = inspect.getattr_static(found, member)
                function = value.__func__ if isinstance(value, classmethod) else value
                shown = whole if isinstance(value, property) else signature(whole, getattr(found, member))
                parts.append(f"### `{whole}`\n\n```text\n{shown}\n```\n\n{docstring(function)}\n")
    return "\n".join(parts)


def signature(name: str, found: object) -> str:
    """A call with its parameters, one per line if they are many. Configurations take their settings."""
    if isinstance(found, type) and issubclass(found, BaseModel | Exception):
        return f"{name}(...)"
    whole = inspect.signature(found)  # type: ignore[arg-type]
    own = [parameter for parameter in whole.parameters.values() if parameter.name != "self"]
    returned = inspect.Signature.empty if isinstance(found, type) else whole.return_annotation
    text = f"{name}{whole.replace(parameters=own, return_annotation=returned)}"
    if len(text) > WIDTH:
        shown = [str(parameter) for parameter in own]
        kinds = [parameter.kind for parameter in own]
        if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
            shown.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
        text = f"{name}(\n    " + ",\n    ".join(shown) + f",\n){text.rpartition(')')[2]}"
    text = re.sub(r"(: |-> )(['\"])(.+?)\2", r"\1\3", text)  # annotations that are texts
    return re.sub(r"(?<!['\w.])(?:[a-z_]\w*\.)+(?=[A-Za-z])", "", text)


def docstring(found: object) -> str:
    """A docstring in Google's style as Markdown: its sections become lists."""
    text = inspect.getdoc(found) or ""
    text = re.sub(r"(?m)^(Args|Attributes|Raises|Returns):$", r"\1:\n", text)
    text = re.sub(r"(?m)^ {4}(\w+): ", r"- `\1`: ", text)
    return re.sub(r"(?m)^ {4,}", "  ", text)


def fields(found: object) -> str:
    """A list of the fields of a dataclass that comments explain, with those of its bases."""
    lines = [
        f"- `{name}`: {text}\n"
        for base in reversed(getattr(found, "__mro__", ()))
        if "__dataclass_fields__" in vars(base)
        for name, text in re.findall(r"(?m)^    (\w+): [^#\n]+  # (.+)$", inspect.getsource(base))
    ]
    return "\n" + "".join(lines) if lines else ""


def public_members(found: type) -> list[str]:
    """Methods and properties that the class itself or one of this package's bases defines, in order."""
    bases = [base for base in reversed(found.__mro__) if base.__module__.startswith("mnist_accel")]
    kinds = (property, classmethod, staticmethod)
    members = [
        member
        for base in bases
        for member, value in vars(base).items()
        if not member.startswith("_") and (isinstance(value, kinds) or inspect.isfunction(value))
    ]
    fields = {field.name for field in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
    return [member for member in dict.fromkeys(members) if member not in fields]


def table_of_settings(config: type[RunConfig]) -> str:
    """The settings of a configuration: name, option, default, meaning and limits."""
    lines = ["| setting | option | default | meaning |", "|---|---|---|---|"]
    for name, known in settings(config).items():
        option = f"`{option_name(name)}`" if known.on_command_line else "recipes only"
        limits = f" A number {known.limits}." if known.limits else ""
        choices = f" One of {', '.join(f'`{choice}`' for choice in known.choices)}." if known.choices else ""
        default = "" if known.default is None else f"`{known.default}`"
        lines.append(f"| `{name}` | {option} | {default} | {known.meaning}{choices}{limits} |")
    return "\n".join(lines) + "\n"
