"""What a search chooses from: ranges of numbers, and lists of choices."""

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from convjax.errors import UsageError
from convjax.sweep import axes, fields, trials
from convjax.sweep.axes import Axis, Choice
from convjax.sweep.trials import Keep, Parse, Trial
from convjax.train.experiment import Experiment

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_NUMBER = r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"([\w.]+)=({_NUMBER})\.\.({_NUMBER})(?::(log|{_NUMBER}))?")
_DIGITS = 4
"""Digits that drawn numbers are rounded to."""
_LIKE = "0.01..1:log, 0..0.5 or 8..64:8"


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers that a field may have, both ends among them.

    Attributes:
        name: path of the field.
        low: the smallest.
        high: the largest.
        log: whether they are chosen evenly by their logarithms.
        step: their distance; None for all numbers, or all whole ones.
        whole: whether they are whole numbers.
    """

    name: str
    low: float
    high: float
    log: bool
    step: float | None
    whole: bool

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"axis {self.name} is {self.low:g}..{self.high:g}: it must rise")
        if self.log and self.low <= 0:
            raise UsageError(f"axis {self.name} begins at {self.low:g}: with :log it must begin above 0")
        if self.step is not None and self.step <= 0:
            raise UsageError(f"axis {self.name} has the step {self.step:g}: it must be above 0")


Varied: TypeAlias = Range | Axis


@dataclasses.dataclass(frozen=True)
class Space:
    """All that a search may try.

    Attributes:
        varied: what varies, by its name.
        flags: of `convjax train`, for all trials.
        parse: what makes a configuration of flags.
        keep: which combinations to have; None for all.
    """

    varied: Mapping[str, Varied]
    flags: tuple[str, ...]
    parse: Parse
    keep: Keep | None

    def __post_init__(self) -> None:
        if "seed" in self.varied:
            raise UsageError("axis seed: a search does not choose the seed; give all trials one by --seed")

    def distributions(self) -> "dict[str, BaseDistribution]":
        """Returns what Optuna draws from; choices by their words."""
        from optuna import distributions

        found: dict[str, BaseDistribution] = {}
        for name, axis in self.varied.items():
            if isinstance(axis, Axis):
                found[name] = distributions.CategoricalDistribution([_key(choice) for choice in axis.choices])
            elif axis.whole:
                step = 1 if axis.step is None else int(axis.step)
                found[name] = distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=step)
            else:
                found[name] = distributions.FloatDistribution(axis.low, axis.high, log=axis.log, step=axis.step)
        return found

    def grid(self) -> list[dict[str, Any]]:
        """Returns all combinations, as parameters.

        Raises:
            UsageError: a range holds too many numbers for that.
        """
        combinations = itertools.product(*map(_all, self.varied.values()))
        return [dict(zip(self.varied, each, strict=True)) for each in combinations]

    @property
    def size(self) -> float:
        """Number of combinations; infinity with a range of all numbers."""
        return math.prod(map(_count, self.varied.values()))

    def trial(self, parameters: Mapping[str, Any]) -> Trial:
        """Returns the trial of parameters that were drawn.

        Raises:
            UsageError: the configuration does not allow them, or `keep` leaves them out.
        """
        chosen = [_chosen(axis, parameters[name]) for name, axis in self.varied.items()]
        (found,) = trials.expand(chosen, self.flags, self.parse, self.keep)
        return found


def _all(axis: Varied) -> list[Any]:
    if isinstance(axis, Axis):
        return [_key(choice) for choice in axis.choices]
    step = axis.step or (1 if axis.whole and not axis.log else None)
    if step is None or axis.log:
        raise UsageError(f"axis {axis.name}: a grid needs values, or a range with a step, such as {_LIKE.split()[-1]}")
    return _numbers(axis, step)


def _count(axis: Varied) -> float:
    if isinstance(axis, Axis):
        return len(axis.choices)
    step = axis.step or (1 if axis.whole else None)
    return math.inf if step is None else len(_numbers(axis, step))


def _numbers(axis: Range, step: float) -> list[Any]:
    """Returns the numbers of a range with steps."""
    values = [axis.low + i * step for i in range(int((axis.high - axis.low) / step * (1 + 1e-9)) + 1)]
    return [int(value) if axis.whole else value for value in values]


def _key(choice: Choice) -> str:
    """Returns a choice as one text, that Optuna's storages can hold."""
    return " ".join(choice.text)


def _chosen(axis: Varied, value: Any) -> Axis:
    """Returns the axis that has nothing but one value."""
    if isinstance(axis, Range):
        if not axis.whole and axis.step is None:  # nobody wants to read, or write, 17 digits
            value = min(max(float(f"{value:.{_DIGITS}g}"), axis.low), axis.high)
        return Axis(axis.name, (Choice((str(value),), (), (axis.name,)),))
    return Axis(axis.name, (next(choice for choice in axis.choices if _key(choice) == value),))


def of_command(text: str, experiment: Experiment, parse: Parse, flags: Sequence[str]) -> Varied:
    """Returns the range or the axis that an argument such as `optim.lr=0.01..1:log` describes.

    Args:
        text: the argument.
        experiment: the experiment.
        parse: what makes a configuration of flags.
        flags: of `convjax train`, for all trials.

    Raises:
        UsageError: it reads otherwise, or its field holds no numbers.
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        if ".." in text.partition("=")[2]:
            raise UsageError(f"{text}: a range must read like {_LIKE}")
        return axes.of_command(text, experiment)
    name, low, high, how = match.groups()
    ends = [fields.parse(parse(flags), name, [end]) for end in (low, high)]
    if not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise UsageError(f"axis {name}: {ends[0]!r} is no number, so there is no range of such; list the values")
    whole = all(isinstance(end, int) for end in ends)
    step = None if how in (None, "log") else float(how)
    if whole and step is not None and not step.is_integer():
        raise UsageError(f"axis {name} has the step {step:g}: it must be a whole number, as its values are")
    return Range(name, ends[0], ends[1], log=how == "log", step=step, whole=whole)
