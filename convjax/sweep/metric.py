"""The numbers of a run that a sweep can be compared by."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypeAlias, get_args

from convjax.errors import UsageError
from convjax.train.flat import flatten
from convjax.train.run import Run

Source: TypeAlias = Literal["result", "last", "tail", "best"]
SOURCES: tuple[Source, ...] = get_args(Source)

_TAIL = 0.9
"""Share of the steps before the tail."""
_SHARES = ("accuracy", "top5", "calibration_error")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of a run, and how it is written.

    Attributes:
        name: what it is called, as test.accuracy, train.loss:last or validation.accuracy:best.
        field: the part before the colon.
        source: result, the field of result.json; of the values in metrics.jsonl last, best, or tail, the mean of those
            of the last tenth of the steps.
    """

    name: str
    field: str
    source: Source

    @classmethod
    def parse(cls, name: str) -> "Metric":
        """Returns the metric of a name; train.*, which no result has, stands for train.*:last.

        Raises:
            UsageError: what stands after the colon is neither last nor best, or nothing says which value is best.
        """
        field, colon, which = name.partition(":")
        if colon and which not in SOURCES[1:]:
            raise UsageError(f"--metric is {name!r}: after the colon stands last, tail or best, as in train.loss:tail")
        source: Source = "last" if field.startswith("train.") else "result"
        if colon:
            (source,) = (known for known in SOURCES if known == which)
        metric = cls(name if colon or source == "result" else f"{name}:last", field, source)
        if source == "best" and metric.higher_is_better is None:
            raise UsageError(f"--metric is {name!r}: only accuracies and losses have a best value")
        return metric

    @property
    def higher_is_better(self) -> bool | None:
        """Whether more is better; None where neither more nor less is."""
        leaf = self.field.rpartition(".")[2]
        if leaf in ("accuracy", "top5") or ".per_class." in self.field:
            return True
        return False if leaf in ("loss", "calibration_error") else None

    @property
    def is_share(self) -> bool:
        """Whether it is a share, which is written in percent."""
        return self.field.rpartition(".")[2] in _SHARES or ".per_class." in self.field

    @property
    def title(self) -> str:
        """Name and unit, for a column or an axis."""
        return f"{self.name} (%)" if self.is_share else self.name

    @property
    def difference_title(self) -> str:
        """What a column of differences is called."""
        return "difference (points)" if self.is_share else "difference"

    def scaled(self, value: float) -> float:
        """Returns a value in the unit of `title`."""
        return 100 * value if self.is_share else value

    def show(self, value: float | None, *, sign: bool = False) -> str:
        """Writes a value or, with a sign, a difference, in the unit of `title`; nothing for None."""
        if value is None:
            return ""
        return f"{self.scaled(value):{'+' if sign else ''}{'.2f' if self.is_share else '.4g'}}"

    def of(self, run: Run) -> float | None:
        """Returns the value of a finished run; None where it has none, or none that is finite.

        Raises:
            RunError: a file of the run is damaged.
        """
        if self.source == "result":
            value = flatten(run.read_json(run.result.name)).get(self.field)
            return value if is_number(value) else None
        return self.among(run.metrics())

    def among(self, lines: Iterable[Mapping[str, float | None]]) -> float | None:
        """Returns the last or best value in the lines of metrics.jsonl; None where there is none, or none finite."""
        found = [(line["step"], line[self.field]) for line in lines if self.field in line]
        logged = [value for _, value in found]
        if self.source == "last":
            return logged[-1] if logged else None
        if self.source == "tail":
            begins = _TAIL * (found[-1][0] or 0) if found else 0
            tail = [math.nan if value is None else value for step, value in found if (step or 0) > begins]
            mean = sum(tail) / len(tail) if tail else math.nan
            return mean if math.isfinite(mean) else None
        finite = [value for value in logged if value is not None]
        return (max if self.higher_is_better else min)(finite, default=None)


def available(runs: Iterable[Run]) -> list[str]:
    """Returns the names of the metrics that finished runs have.

    Raises:
        RunError: a file of theirs is damaged.
    """
    names: dict[str, None] = {}
    for run in runs:
        result = flatten(run.read_json(run.result.name))
        names |= dict.fromkeys(name for name, value in result.items() if is_number(value))
        for line in run.metrics():
            names |= dict.fromkeys(f"{name}:last" for name in line if name != "step")
    return list(names)


def is_number(value: object) -> bool:
    """Says whether a value of JSON is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
