"""Cells in rows and columns: for the terminal, and as CSV."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence

from convjax.sweep.record import Value


@dataclasses.dataclass(frozen=True)
class Table:
    """Attributes:
    columns: their titles.
    rows: the cells of each row.
    texts: number of columns, from the left, that hold text; the others hold numbers, but for the last if `ends`.
    ends: whether the last column holds text.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    ends: bool = True

    def is_number(self, column: int) -> bool:
        """Says whether a column holds numbers."""
        return self.texts <= column < len(self.columns) - self.ends


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Writes rows as RFC 4180 has it, numbers to their last digit, nothing for None."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def value(setting: Value) -> str:
    """Writes the value of an axis: a string as it is, all else as JSON."""
    return setting if isinstance(setting, str) else json.dumps(setting)
