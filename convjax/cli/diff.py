"""`convjax diff RUN_A RUN_B`: in what two runs differ."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from convjax.cli.console import console


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Shows in what two runs differ: configuration, data, code, environment and result."""

    first: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_A")]
    """Directory of a run."""
    second: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_B")]
    """Directory of another."""
    sources: bool = False
    """Print in full how uncommitted changes differ, not only in which files there are some."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(arguments: list[str]) -> None:
    """Prints a table for each part in which the runs differ."""
    parsed = tyro.cli(Arguments, prog="convjax diff", args=arguments)
    from convjax.inspect.diff import EXPERIMENT, diff
    from convjax.train.run import Run

    found = dataclasses.asdict(diff(Run(parsed.first), Run(parsed.second)))
    if parsed.json:
        print(json.dumps(found))
        return
    out = console()
    sources = found.pop("sources")
    for part, changes in found.items():
        if not changes:
            out.print(f"{part}: the same")
            continue
        table = Table(part, str(parsed.first), str(parsed.second), box=None, header_style="bold")
        for field, (old, new) in changes.items():
            table.add_row(field, str(old), str(new))
        out.print(table)
    for name, text in sources.items():
        if name == EXPERIMENT or parsed.sources:
            out.print(f"{name}:\n{text}", soft_wrap=True)
        else:
            out.print(f"{name}: not the same, --sources shows how", soft_wrap=True)
