"""What of many runs is shown: which of them, in which order, and which of their numbers."""

import dataclasses
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from convjax.errors import UsageError, nearest
from convjax.sweep.cells import Table
from convjax.sweep.cells import value as written
from convjax.sweep.metric import Metric, is_number
from convjax.sweep.runs import ABSENT, Row

_CONDITION = re.compile(r"\s*([^<>=!\s]+)\s*(==|!=|<=|>=|=|<|>)\s*(.*?)\s*")
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_PYTHON = {"None": None, "True": True, "False": False}
"""Python's names of what JSON calls otherwise."""
_HEADLINES = ("validation.accuracy", "test.accuracy")
_BY_PROCESS = {"parallel.process_id", "parallel.coordinator"}
"""Settings that say nothing of a run."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """What a run must be like, as optim.lr=0.1, status!=finished or test.accuracy>0.9.

    Attributes:
        field: a name that `Row.get` takes.
        relation: =, !=, <, <=, > or >=.
        value: what it is compared with: a number, a string, or what else JSON knows.
    """

    field: str
    relation: str
    value: Any

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Returns the condition that a text stands for; nothing of the text is run.

        Raises:
            UsageError: it stands for none.
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(f"--where is {text!r}: it must read like optim.lr=0.1 or 'test.accuracy>0.9'")
        field, relation, right = match.groups()
        try:
            value = _PYTHON[right] if right in _PYTHON else json.loads(right)
        except ValueError:
            value = right  # a word, as in status=finished
        if relation in _ORDERS and not is_number(value):
            raise UsageError(f"--where is {text!r}: {relation} compares with a number, not with {right!r}")
        return cls(field, "=" if relation == "==" else relation, value)

    def holds(self, row: Row) -> bool:
        """Says whether a run is like that; one that has no such value is not, but for `!=`."""
        found = row.get(self.field)
        if self.relation in _ORDERS:
            return is_number(found) and _ORDERS[self.relation](found, self.value)
        return self._equals(found) == (self.relation == "=")

    def _equals(self, found: Any) -> bool:
        # To Python, True is 1: to whoever asks for optim.nesterov=1, it is not.
        same_kind = isinstance(found, bool) == isinstance(self.value, bool)
        as_text = isinstance(found, str) and not isinstance(self.value, str) and found == written(self.value)
        return (same_kind and bool(found == self.value)) or as_text


def require_fields(rows: Sequence[Row], fields: Sequence[str], flag: str) -> None:
    """Makes sure that at least one run knows each of some names.

    Raises:
        UsageError: none does.
    """
    for field in fields:
        if all(row.get(field) is ABSENT for row in rows):
            known = list(dict.fromkeys(name for row in rows for name in row.fields()))
            raise UsageError(f"{flag} names {field!r}, which no run has: {nearest(field, known)}")


def ordered(rows: Sequence[Row], field: str, *, reverse: bool = False) -> list[Row]:
    """Returns runs sorted by a field: the best first where more or less of it is better, else rising.

    Numbers come before words; runs without a value come last, also in reverse.
    """
    falling = bool(_metric(field).higher_is_better) != reverse

    def missing(row: Row) -> bool:
        return row.get(field) in (ABSENT, None)

    numbers = [row for row in rows if is_number(row.get(field))]
    words = [row for row in rows if not missing(row) and not is_number(row.get(field))]
    numbers.sort(key=lambda row: row.get(field), reverse=falling)
    words.sort(key=lambda row: written(row.get(field)), reverse=reverse)
    return [*(words + numbers if reverse else numbers + words), *filter(missing, rows)]


def _metric(field: str) -> Metric:
    """Returns a field as a metric: for whether more of it is better, and whether it is a share."""
    return Metric(field, field.partition(":")[0], "result")


def columns(rows: Sequence[Row]) -> list[str]:
    """Returns what is to be shown of runs where nobody says: settings in which they differ, and their accuracies."""
    names = dict.fromkeys(name for row in rows for name in row.settings if name not in _BY_PROCESS)

    def differs(name: str) -> bool:
        # A run that has not begun has no settings but its axes.
        known = [row.settings for row in rows if row.configured or name in row.settings]
        return len({json.dumps(settings.get(name, "absent")) for settings in known}) > 1

    shown = ["run", "status", *filter(differs, names)]
    if any(row.status in ("running", "interrupted", "failed", "pruned") for row in rows):
        shown.append("step")
    shown += [name for name in _HEADLINES if any(name in row.results for row in rows)]
    return shown + (["problem"] if any(row.problem for row in rows) else [])


def records(rows: Sequence[Row], fields: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the values of fields for each run, None where it has none."""
    found = ({field: row.get(field) for field in fields} for row in rows)
    return [{field: None if value is ABSENT else value for field, value in row.items()} for row in found]


def table(rows: Sequence[Row], fields: Sequence[str]) -> Table:
    """Returns the values of fields as they are read: shares of metrics in percent."""
    metrics = {field: _metric(field) for field in fields}

    def cell(field: str, value: Any) -> str:
        if value is ABSENT:
            return ""
        if metrics[field].is_share and is_number(value):
            return metrics[field].show(value)
        return f"{value:.6g}" if isinstance(value, float) else written(value)

    lines = [tuple(cell(field, row.get(field)) for field in fields) for row in rows]
    ends = bool(fields) and fields[-1] == "problem"
    return Table(tuple(metrics[field].title for field in fields), tuple(lines), texts=2, ends=ends)


def logged(rows: Sequence[Row]) -> list[list[object]]:
    """Returns all that runs have logged: a header, then a row for each run and step."""
    names = list(dict.fromkeys(name for row in rows for line in row.lines for name in line if name != "step"))
    found: list[list[object]] = [["run", "step", *names]]
    for row in rows:
        steps: dict[int, dict[str, Any]] = {}
        for line in row.lines:
            steps.setdefault(line["step"], {}).update(line)
        found += [[row.name, step, *map(line.get, names)] for step, line in steps.items()]
    return found
