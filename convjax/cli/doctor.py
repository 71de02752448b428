"""`convjax doctor`: whether this machine is ready to train, and what to do where it is not."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from convjax.cli.console import console
from convjax.errors import RunError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Looks at devices, versions, data and disk, takes one training step in every mode, and says what is amiss."""

    data: str = "digits"
    """A data set to look for."""
    directory: str | None = None
    """TFDS data directory; None takes $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    workdir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Where runs are to be written."""


def run(arguments: list[str]) -> None:
    """Prints a line for each check; fails if one failed."""
    parsed = tyro.cli(Arguments, prog="convjax doctor", args=arguments)
    from convjax.inspect.doctor import examine

    table = Table("", "check", "found", box=None, header_style="bold")
    findings = list(examine(parsed.data, parsed.directory, parsed.workdir))
    for finding in findings:
        table.add_row("ok" if finding.fine else "!!", finding.check, finding.found)
    out = console()
    out.print(table)
    for finding in findings:
        if finding.advice:
            out.print(f"{finding.check}: {finding.advice}", soft_wrap=True)
    if failed := [finding.check for finding in findings if not finding.fine]:
        raise RunError(f"not in order: {', '.join(failed)}")
