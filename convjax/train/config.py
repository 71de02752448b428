"""The configuration of a run: frozen dataclasses, checked when they are made. No option lives elsewhere."""

import dataclasses
import importlib
import re
import typing
from typing import Any, Literal

import flax.linen as nn

from convjax.data.augment import Augment
from convjax.errors import UsageError, check_choices

FLAX_FIELDS = {"parent", "name"}
"""Fields that Flax adds to each module."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?)\s*")


def _require(condition: bool, field: str, value: object, right: str) -> None:
    if not condition:
        raise UsageError(f"{field} is {value}: it must be {right}")


def parse_duration(field: str, duration: str) -> tuple[float, Literal["steps", "epochs"]]:
    """Returns number and unit of "500 steps" or "1.5 epochs".

    Raises:
        UsageError: `duration`, the value of `field`, reads otherwise.
    """
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise UsageError(f"{field} is {duration!r}: it must read like '500 steps' or '5 epochs'")
    return float(match[1]), "steps" if match[2].startswith("step") else "epochs"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which examples, and what is done to them."""

    name: str = "digits"
    """digits, synthetic, or a TFDS set: name, name/config or name:1.2.3."""
    directory: str | None = None
    """TFDS data directory; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    image_size: int | None = None
    """Side in pixels to which images are resized and cropped; None keeps them as they are."""
    validation: float = 0.1
    """Share of the train split that is kept apart to choose the best checkpoint by; 0 uses all for training."""
    augment: Augment = Augment()

    def __post_init__(self) -> None:
        _require(0 <= self.validation < 1, "data.validation", self.validation, "from 0 to below 1")
        _require(self.image_size is None or self.image_size >= 1, "data.image_size", self.image_size, "at least 1")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimizer, learning-rate schedule, weight decay, clipping."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum, decay added to the gradient; adamw: decay apart from it (arXiv:1711.05101)."""
    lr: float = 0.1
    """Highest learning rate."""
    momentum: float = 0.9
    """Decay of sgd's momentum, or adamw's beta 1."""
    nesterov: bool = True
    """Whether sgd's momentum is Nesterov's."""
    beta2: float = 0.999
    """Decay of adamw's second moment."""
    weight_decay: float = 5e-4
    """Coefficient of the decay."""
    decay: tuple[str, ...] = ("*/kernel",)
    """Patterns of the parameters that decay, as stage1_block1/conv1/conv/kernel or */kernel."""
    no_decay: tuple[str, ...] = ("*/bias", "*/scale")
    """Patterns of those that do not. Each parameter must match in exactly one of both lists."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up: to 0 by a cosine, down by steps, or not at all."""
    warmup: str = "0 steps"
    """Length of the linear warm-up, as "500 steps" or "5 epochs"."""
    drops: tuple[float, ...] = (0.5, 0.75)
    """Where schedule step lowers the rate, as shares of the run's length."""
    drop_factor: float = 0.1
    """What schedule step multiplies the rate by at each drop."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; None does not clip."""

    def __post_init__(self) -> None:
        check_choices(self, "optim")
        _require(self.lr > 0, "optim.lr", self.lr, "above 0")
        _require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "from 0 to below 1")
        _require(0 <= self.beta2 < 1, "optim.beta2", self.beta2, "from 0 to below 1")
        _require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "at least 0")
        _require(0 < self.drop_factor <= 1, "optim.drop_factor", self.drop_factor, "above 0 and at most 1")
        rising = all(a < b for a, b in zip((0.0, *self.drops), (*self.drops, 1.0), strict=True))
        _require(rising, "optim.drops", self.drops, "rising shares between 0 and 1")
        _require(self.clip_norm is None or self.clip_norm > 0, "optim.clip_norm", self.clip_norm, "above 0 or None")
        parse_duration("optim.warmup", self.warmup)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length, batches, loss, and how often the run is looked at."""

    length: str = "10 epochs"
    """Length of the run, as "64000 steps" or "90 epochs"."""
    batch_size: int = 128
    """Examples a step."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes (arXiv:1512.00567)."""
    evaluate_every: str = "1 epochs"
    """How often the validation split is evaluated and a checkpoint saved; not again shortly before the end."""
    log_every: int = 50
    """Steps between two lines of training metrics."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "train.batch_size", self.batch_size, "at least 1")
        _require(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "from 0 to below 1")
        _require(self.log_every >= 1, "train.log_every", self.log_every, "at least 1")
        for field, value in (("length", self.length), ("evaluate_every", self.evaluate_every)):
            count, _ = parse_duration(f"train.{field}", value)
            _require(count > 0, f"train.{field}", value, "longer than nothing")


@dataclasses.dataclass(frozen=True)
class Config:
    """An experiment: everything that decides its numbers."""

    model: nn.Module
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    seed: int = 0
    """Seed of initialisation, order, augmentation and dropout."""

    def __post_init__(self) -> None:
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")


def duration_steps(field: str, duration: str, steps_per_epoch: float) -> int:
    """Returns a duration in whole steps, the nearest number to it."""
    count, unit = parse_duration(field, duration)
    return round(count if unit == "steps" else count * steps_per_epoch)


def model_fields(model: nn.Module) -> dict[str, Any]:
    """Returns a model's own fields by name."""
    return {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in FLAX_FIELDS}


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


def flatten(json: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested dictionaries as one, `{"optim.lr": 0.1, ...}`."""
    if not isinstance(json, dict):
        return {prefix: json}
    flat: dict[str, Any] = {}
    for key, value in json.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return flat
