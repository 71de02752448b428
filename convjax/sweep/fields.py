"""Single fields of a configuration by their paths, such as `optim.lr`."""

import contextlib
import dataclasses
import io
import typing
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import numpy as np
import tyro

from convjax.errors import UsageError, nearest
from convjax.train.config import Config, model_fields
from convjax.train.config_json import to_json
from convjax.train.flat import flatten

_MISSING = object()


def get(config: Config, path: str) -> Any:
    """Returns the value of a field.

    Raises:
        UsageError: there is no such field.
    """
    value: Any = config
    for part in path.split("."):
        value = _fields(value).get(part, _MISSING)
        if value is _MISSING:
            known = [key for key in flatten(to_json(config)) if not key.endswith(".type")]
            raise UsageError(f"the configuration has no field {path}: {nearest(path, known)}")
    return value


def replace(config: Any, path: str, value: Any) -> Any:
    """Returns a configuration, or a part of one, with another value in a field that exists.

    Raises:
        UsageError: the configuration does not allow the value.
    """
    first, _, rest = path.partition(".")
    if rest:
        value = replace(getattr(config, first), rest, value)
    if isinstance(config, nn.Module):
        return config.clone(**{first: value})
    return dataclasses.replace(config, **{first: value})


def parse(config: Config, path: str, text: Sequence[str]) -> Any:
    """Returns the value that words of a command line stand for, as a value of the field's own type.

    Raises:
        UsageError: there is no such field, or they stand for none.
    """
    old = get(config, path)
    if dataclasses.is_dataclass(old):
        raise UsageError(
            f"{path} is a {type(old).__name__}, no single value: give its fields, or name arms in the file"
        )
    owner, _, name = path.rpartition(".")
    kind = typing.get_type_hints(type(get(config, owner) if owner else config))[name]
    if typing.get_origin(kind) is tuple:  # "32 64" is one value, of two words
        text = [word for part in text for word in part.split()]
    # Python's names of these three, which a command line may well write small.
    python = {"true": "True", "false": "False"} if kind is bool else {}
    python |= {"none": "None"} if type(None) in typing.get_args(kind) else {}
    try:
        # tyro draws a box around what is wrong, for a flag; here an axis is to be named.
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(kind, args=[python.get(word, word) for word in text])
    except SystemExit as error:
        raise UsageError(f"{' '.join(text)!r} is no value of {path}: it must be {_described(kind)}") from error


def words(value: Any) -> tuple[str, ...] | None:
    """Returns a value as words of a command line; None if it is no number, string, or tuple of them."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | str | None):
        return (str(value),)
    if isinstance(value, tuple | list):
        parts = [words(part) for part in value]
        return None if None in parts else tuple(word for part in parts if part for word in part)
    return None


def flags(path: str, value: Any) -> tuple[str, ...]:
    """Returns the flags of `convjax train` that set a field."""
    name = path.replace("_", "-")
    if isinstance(value, bool):
        owner, dot, last = name.rpartition(".")
        return (f"--{name}" if value else f"--{owner}{dot}no-{last}",)
    return (f"--{name}", *(words(value) or ()))


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, nn.Module):
        return model_fields(value)
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {}


def _described(kind: Any) -> str:
    """Returns a type as a user reads it: `one of batch, none`, or `a number`."""
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "None"}
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if type(None) in typing.get_args(kind):
        return " or ".join(_described(part) for part in typing.get_args(kind))
    return names.get(kind, str(kind))
