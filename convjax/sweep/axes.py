"""What a sweep varies: axes, from an experiment file and from the command line.

An axis either gives values to the field that it is named after, or has named choices: models by their names in
`convjax.models`, or arms of the experiment file, each of which sets one field or several.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from convjax.errors import UsageError, nearest
from convjax.sweep import fields
from convjax.train.config import Config
from convjax.train.experiment import Experiment

MODEL = "model"
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


class HasName(Protocol):
    """What is known by its name."""

    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=HasName)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One choice of an axis.

    Attributes:
        text: its name, or the words of a field's value.
        flags: what `convjax train` is given to take it; empty for a field's value, which is parsed first.
        sets: the fields that it sets.
    """

    text: tuple[str, ...]
    flags: tuple[str, ...]
    sets: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Axis:
    """Attributes:
    name: path of the field that it gives values to, or any name for one with arms.
    choices: one at least.
    """

    name: str
    choices: tuple[Choice, ...]

    def __post_init__(self) -> None:
        if not self.choices:
            raise UsageError(f"axis {self.name} has no value: it must have one at least")
        for i, choice in enumerate(self.choices):
            if choice in self.choices[:i]:
                raise UsageError(f"axis {self.name} has {' '.join(choice.text)} twice")

    @property
    def named(self) -> bool:
        """Whether its choices are known by their names."""
        return bool(self.choices[0].flags)


def of_file(experiment: Experiment) -> list[Axis]:
    """Returns the axes that an experiment file defines.

    Raises:
        UsageError: they are not what axes must be; the message names axis and value.
    """
    return [Axis(name, tuple(_choices(name, given))) for name, given in experiment.axes.items()]


def of_command(text: str, experiment: Experiment) -> Axis:
    """Returns the axis that an argument such as `optim.lr=0.1,0.2` or `seed=0..4` describes.

    Raises:
        UsageError: it reads otherwise, or names an arm or a model that there is not.
    """
    name, equals, values = text.partition("=")
    if not (name and equals and values):
        raise UsageError(f"{text!r} is no axis: it must read like optim.lr=0.1,0.2 or seed=0..4")
    parts = values.split(",")
    if isinstance(arms := experiment.axes.get(name), Mapping) and (name != MODEL or set(parts) & set(arms)):
        for part in parts:
            if part not in arms:
                raise UsageError(f"axis {name} has no arm {part!r} in {experiment.path}: {nearest(part, list(arms))}")
        return Axis(name, tuple(_arm(name, part, arms[part]) for part in parts))
    if name == MODEL:
        return Axis(name, tuple(_model(part) for part in parts))
    return Axis(name, tuple(Choice(words, (), (name,)) for part in parts for words in _words(name, part)))


def override(own: Iterable[Named], given: Iterable[Named]) -> dict[str, Named]:
    """Returns axes by name: an experiment file's own, and those given in the place of the own ones or after them.

    Raises:
        UsageError: one is given twice.
    """
    varied = {axis.name: axis for axis in own}
    seen = set()
    for axis in given:
        if axis.name in seen:
            raise UsageError(f"axis {axis.name} is given twice")
        seen.add(axis.name)
        varied[axis.name] = axis
    return varied


def set_arms(config: Config, experiment: Experiment, arms: Iterable[str]) -> Config:
    """Returns a configuration with what arms of the experiment's axes, given as AXIS=NAME, set in it.

    Raises:
        UsageError: there is no such arm, or what it sets is wrong.
    """
    changes: dict[str, Any] = {}
    for text in arms:
        axis, _, name = text.partition("=")
        known = experiment.axes.get(axis)
        if not isinstance(known, Mapping):
            named = [key for key, value in experiment.axes.items() if isinstance(value, Mapping)]
            raise UsageError(f"--arm {text}: {experiment.path} has no axis {axis!r} with arms; those with are {named}")
        if name not in known:
            raise UsageError(f"--arm {text}: axis {axis} has no arm {name!r}: {nearest(name, list(known))}")
        new = _changes(axis, known[name])
        if twice := sorted(set(new) & set(changes)):
            raise UsageError(f"--arm {text}: another arm sets {twice[0]} as well")
        changes |= new
    # A model comes before its fields.
    for path in sorted(changes, key=lambda path: path.count(".")):
        fields.get(config, path)
        try:
            config = fields.replace(config, path, changes[path])
        except TypeError as error:
            raise UsageError(f"{path} cannot be {changes[path]!r}: {error}") from error
    return config


def _choices(name: str, given: Any) -> Iterable[Choice]:
    if isinstance(given, Mapping):
        for key in given:
            if not isinstance(key, str) or not re.fullmatch(r"[^,=\s]+", key):
                raise UsageError(f"axis {name}: arm {key!r} must have a name without comma, equals sign or space")
        return [_arm(name, key, value) for key, value in given.items()]
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(f"axis {name} is {given!r}: it must be a list of values, or a dict of arms by name")
    values = list(given)
    if name == MODEL and all(isinstance(value, str) for value in values):
        return [_model(value) for value in values]
    return [_value(name, value) for value in values]


def _value(name: str, value: Any) -> Choice:
    words = fields.words(value)
    if words is None:
        kind = type(value).__name__
        raise UsageError(f"axis {name}: a {kind} has no short name; give it one: {{'some_name': {kind}(...), ...}}")
    return Choice(words, (), (name,))


def _arm(axis: str, name: str, value: Any) -> Choice:
    return Choice((name,), ("--arm", f"{axis}={name}"), tuple(_changes(axis, value)))


def _changes(axis: str, value: Any) -> dict[str, Any]:
    """Returns what an arm sets, by field."""
    return dict(value) if isinstance(value, Mapping) else {axis: value}


def _model(name: str) -> Choice:
    # The table imports all families; most sweeps vary something else.
    from convjax.models import MODELS

    if name not in MODELS:
        raise UsageError(f"axis model: there is no model {name!r}: {nearest(name, list(MODELS))}")
    return Choice((name,), ("--model", name), (MODEL,))


def _words(name: str, part: str) -> Sequence[tuple[str, ...]]:
    """Returns the values that a part between commas stands for: one, or those of a range of whole numbers."""
    if span := _RANGE.fullmatch(part):
        first, last = int(span[1]), int(span[2])
        if last < first:
            raise UsageError(f"axis {name}: {part} is empty, it must rise")
        return [(str(number),) for number in range(first, last + 1)]
    if re.fullmatch(r"[\d.eE+-]+\.\.[\d.eE+-]+.*", part):
        raise UsageError(f"axis {name}: {part} is no range of whole numbers such as 0..4; list the values")
    if not part:
        raise UsageError(f"axis {name}: a value is missing between commas")
    return [(part,)]
