"""`convjax runs DIR`: all runs below a directory, with their settings and results."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from convjax.cli.console import console, rich_table
from convjax.errors import UsageError

if TYPE_CHECKING:
    from convjax.sweep.runs import Row


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Lists all runs below a directory, those of sweeps and others: status, the settings that differ, results.

    Names of fields are those of config.json, as optim.lr, of result.json, as test.accuracy, of metrics.jsonl, as
    train.loss:last or validation.accuracy:best, and run, status, problem, step; in sweeps also axes.
    """

    directory: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Where to look; the directory of one run lists that one."""
    where: Annotated[
        tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="CONDITION ...")
    ] = ()
    """Conditions, all of which must hold: optim.lr=0.1, status!=finished, 'test.accuracy>0.9' (shares are up to 1)."""
    sort: str = "run"
    """Field to sort by: accuracies and losses the best first, all else rising; runs without a value come last."""
    reverse: bool = False
    """Sort the other way round."""
    columns: tuple[str, ...] = ()
    """Fields to show; None given: run, status, the settings that differ, accuracies, problems."""
    metrics: bool = False
    """Give all that the runs have logged, a line for each run and step, instead; as CSV or JSON."""
    format: Literal["text", "csv", "json"] = "text"
    """text for reading, with shares in percent; csv and json with all digits."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
    """File to write instead of printing."""

    def __post_init__(self) -> None:
        if self.metrics and self.format == "text":
            raise UsageError("--metrics gives a table for programs: add --format csv or --format json")
        if self.metrics and self.columns:
            raise UsageError("--metrics gives every column: leave out --columns")
        if self.output is not None and self.format == "text":
            raise UsageError("-o writes a file for programs: add --format csv or --format json")


def run(arguments: list[str]) -> None:
    """Prints or writes the table."""
    parsed = tyro.cli(Arguments, prog="convjax runs", args=arguments)

    from convjax.sweep import query, runs

    found = runs.find(parsed.directory)
    conditions = [query.Condition.parse(text) for texts in parsed.where for text in texts]
    query.require_fields(found, [condition.field for condition in conditions], "--where")
    query.require_fields(found, [parsed.sort], "--sort")
    query.require_fields(found, parsed.columns, "--columns")
    kept = [row for row in found if all(condition.holds(row) for condition in conditions)]
    rows = query.ordered(kept, parsed.sort, reverse=parsed.reverse)
    if parsed.format == "text":
        _print(rows, parsed.columns or query.columns(rows), len(found))
        return
    text = _metrics(rows, parsed.format) if parsed.metrics else _runs(rows, parsed.columns, parsed.format)
    if parsed.output is None:
        print(text, end="")
        return
    try:
        parsed.output.write_text(text)
    except OSError as error:
        raise UsageError(f"-o is {parsed.output}: it cannot be written ({error.strerror})") from error
    console().print(f"{parsed.output}: {len(rows)} runs", soft_wrap=True)


def _print(rows: "list[Row]", columns: "tuple[str, ...] | list[str]", every: int) -> None:
    from convjax.sweep import query

    out = console()
    out.print(rich_table(query.table(rows, columns)))
    counts = ", ".join(f"{count} {status}" for status, count in Counter(row.status for row in rows).items())
    out.print(f"{len(rows)} of {every} runs{': ' if counts else ''}{counts}")


def _runs(rows: "list[Row]", columns: tuple[str, ...], kind: str) -> str:
    from convjax.sweep import query
    from convjax.sweep.cells import csv_text, value

    if kind == "json" and not columns:
        parts = ("name", "status", "problem", "settings", "results")
        whole = [{part: getattr(row, part) for part in parts} for row in rows]
        return json.dumps(whole, default=dict) + "\n"
    fields = columns or tuple(query.columns(rows))
    records = query.records(rows, fields)
    if kind == "json":
        return json.dumps(records) + "\n"

    def plain(cell: object) -> object:
        return cell if cell is None or (isinstance(cell, int | float) and not isinstance(cell, bool)) else value(cell)

    return csv_text([list(fields), *([plain(cell) for cell in record.values()] for record in records)])


def _metrics(rows: "list[Row]", kind: str) -> str:
    from convjax.sweep import query
    from convjax.sweep.cells import csv_text

    table = query.logged(rows)
    if kind == "csv":
        return csv_text(table)
    return json.dumps([dict(zip(map(str, table[0]), row, strict=True)) for row in table[1:]]) + "\n"
