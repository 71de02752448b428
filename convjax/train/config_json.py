"""Configurations as JSON and back."""

import dataclasses
import importlib
import typing
from typing import Any, cast

import flax.linen as nn

from convjax.errors import UsageError
from convjax.train.config import FLAX_FIELDS, Config, model_fields


def to_json(config: Any) -> Any:
    """Returns a configuration as what JSON knows; a model's class stands under the key `type`.

    Raises:
        UsageError: a field is something else than a number, a string or a tuple of them.
    """
    if isinstance(config, nn.Module):
        kind = type(config)
        fields = {key: to_json(value) for key, value in model_fields(config).items()}
        return {"type": f"{kind.__module__}:{kind.__qualname__}", **fields}
    if dataclasses.is_dataclass(config):
        return {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_json(value) for value in config]
    if not isinstance(config, bool | int | float | str | None):
        raise UsageError(
            f"a field of the configuration is {config!r}: fields must be numbers, strings or tuples of them"
        )
    return config


def from_json(json: dict[str, Any]) -> Config:
    """Returns the configuration that `to_json` wrote.

    Raises:
        UsageError: a field is missing, unknown or wrong, or the model's class cannot be found.
    """
    return _build(Config, json, "")


def model_from_json(json: dict[str, Any]) -> nn.Module:
    """Returns the model that `to_json` wrote.

    Raises:
        UsageError: as `from_json`.
    """
    return cast(nn.Module, _build(nn.Module, json, "model"))


def _build(kind: Any, json: Any, path: str) -> Any:
    if not isinstance(json, dict) and dataclasses.is_dataclass(kind):
        raise UsageError(f"the configuration's field {path or 'config'} is {json!r}: it must be an object")
    if kind is nn.Module:
        fields = {key: _tuples(value) for key, value in json.items() if key != "type"}
        return _make(_model_class(json.get("type")), fields, f"{path}.")
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        prefix = f"{path}." if path else ""
        fields = {key: _build(hints.get(key), value, f"{prefix}{key}") for key, value in json.items()}
        return _make(kind, fields, prefix)
    return _tuples(json)


def _make(kind: Any, fields: dict[str, Any], prefix: str) -> Any:
    own = {f.name for f in dataclasses.fields(kind)} - (FLAX_FIELDS if issubclass(kind, nn.Module) else set())
    if wrong := sorted(set(fields) ^ own):
        raise UsageError(f"the configuration's fields do not fit this version of convjax: {prefix}{wrong[0]}")
    return kind(**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _model_class(path: Any) -> Any:
    module, _, name = str(path).partition(":")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"model.type is {path!r}: there is no such class ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UsageError(f"model.type is {path!r}: it must be a class of Flax modules")
    return kind
