"""From axes to configurations: every combination of choices that is not left out."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from convjax.errors import UsageError, about, nearest
from convjax.sweep import fields
from convjax.sweep.axes import Axis, Choice
from convjax.train.config import Config
from convjax.train.config_json import to_json
from convjax.train.flat import flatten

Parse: TypeAlias = Callable[[Sequence[str]], Config]
"""Returns the configuration that flags of `convjax train` make of an experiment."""
Keep: TypeAlias = Callable[[Mapping[str, Any]], bool]

_NUMBERS = {
    "seed",
    "train.length",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.log_every",
    *(f"optim.{name}" for name in ("lr", "momentum", "beta2", "weight_decay", "warmup", "drop_factor")),
}
"""Fields that change neither which arrays a step computes nor how."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """A combination of choices.

    Attributes:
        settings: value by axis, as JSON knows it; an arm or a named model by its name.
        flags: what `convjax train` is given besides experiment and directory.
        config: the configuration that they make.
    """

    settings: Mapping[str, Any]
    flags: tuple[str, ...]
    config: Config

    def __str__(self) -> str:
        return describe(self.settings)

    @property
    def shape(self) -> str:
        """What trials have in common whose steps compute the same with other numbers."""
        flat = flatten(to_json(self.config))
        return repr({key: value for key, value in flat.items() if key not in _NUMBERS})


def describe(settings: Mapping[str, Any]) -> str:
    """Returns settings as `model.norm=batch seed=0`."""
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "(nothing varies)"


def expand(axes: Sequence[Axis], flags: Sequence[str], parse: Parse, keep: Keep | None) -> list[Trial]:
    """Returns all combinations, the last axis varying fastest.

    Args:
        axes: what varies.
        flags: of `convjax train`, for all of them.
        parse: what makes a configuration of flags.
        keep: which combinations to have; None for all.

    Raises:
        UsageError: a combination is not allowed, or none is left; the message names axis and value.
    """
    _check_apart(axes, flags)
    bases = dict(_bases([axis for axis in axes if axis.named], flags, parse))
    values = {axis.name: _values(axis, list(bases.values())) for axis in axes if not axis.named}
    trials = []
    for choices in itertools.product(*(axis.choices for axis in axes)):
        pairs = list(zip(axes, choices, strict=True))
        chosen = {axis.name: choice.text[0] if axis.named else values[axis.name][choice] for axis, choice in pairs}
        if keep is None or _kept(keep, chosen):
            base = bases[tuple(choice for axis, choice in pairs if axis.named)]
            trials.append(_trial(chosen, pairs, flags, base))
    if not trials:
        raise UsageError("the sweep has no run: `keep` leaves out every combination")
    return trials


def _check_apart(axes: Sequence[Axis], flags: Sequence[str]) -> None:
    """Makes sure that no field is set twice."""
    given = {flag.partition("=")[0].removeprefix("--").replace("-", "_") for flag in flags if flag.startswith("--")}
    if "arm" in given:
        raise UsageError("--arm belongs to `convjax train`; a sweep takes AXIS=NAME[,NAME...]")
    setters: dict[str, str] = {}
    for axis in axes:
        if axis.name in setters.values():
            raise UsageError(f"axis {axis.name} is given twice")
        for path in sorted({path for choice in axis.choices for path in choice.sets}):
            if path in setters:
                raise UsageError(f"axes {setters[path]} and {axis.name} both set {path}")
            if path in given:
                raise UsageError(f"axis {axis.name} sets {path}: leave out the flag that sets it as well")
            setters[path] = axis.name


def _bases(axes: Sequence[Axis], flags: Sequence[str], parse: Parse) -> Iterator[tuple[tuple[Choice, ...], Config]]:
    """Yields the configuration for each combination of named choices."""
    for choices in itertools.product(*(axis.choices for axis in axes)):
        with about(describe({axis.name: choice.text[0] for axis, choice in zip(axes, choices, strict=True)})):
            yield choices, parse([*(flag for choice in choices for flag in choice.flags), *flags])


def _values(axis: Axis, bases: Sequence[Config]) -> dict[Choice, Any]:
    """Returns the values of an axis, of its field's type in the first configuration that has the field."""
    for base in bases:
        try:
            fields.get(base, axis.name)
        except UsageError:
            continue
        break
    else:
        known = [key for key in flatten(to_json(bases[0])) if not key.endswith(".type")]
        raise UsageError(f"axis {axis.name}: there is no such field: {nearest(axis.name, known)}")
    values: dict[Choice, Any] = {}
    for choice in axis.choices:
        with about(f"axis {axis.name}"):
            value = fields.parse(base, axis.name, choice.text)
        if value in values.values():
            raise UsageError(f"axis {axis.name} has {value} twice")
        values[choice] = value
    return values


def _kept(keep: Keep, settings: Mapping[str, Any]) -> bool:
    try:
        return bool(keep(dict(settings)))
    except Exception as error:  # whatever the file's author got wrong
        raise UsageError(f"{describe(settings)}: `keep` fails: {type(error).__name__}: {error}") from error


def _trial(
    settings: Mapping[str, Any], pairs: Sequence[tuple[Axis, Choice]], flags: Sequence[str], base: Config
) -> Trial:
    config = base
    early = [flag for _, choice in pairs for flag in choice.flags]
    late: list[str] = []
    with about(describe(settings)):
        for axis, _ in pairs:
            if axis.named:
                continue
            path, value = axis.name, settings[axis.name]
            fields.get(config, path)
            config = fields.replace(config, path, value)
            late += fields.flags(path, value)
    return Trial({name: to_json(value) for name, value in settings.items()}, (*early, *flags, *late), config)
