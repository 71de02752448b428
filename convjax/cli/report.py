"""`convjax report RUN_OR_SWEEP`: what there is to know of a run, or of a sweep, as one HTML file."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import tyro

from convjax.cli.console import console
from convjax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Writes a report of a run or a sweep, finished or not: one HTML file that needs no network and prints well.

    What was run and with which result, learning curves, confusion matrix, accuracy by class, reliability, the worst
    errors with their Grad-CAM, filters and feature maps, the network's health, speed, configuration, environment, and
    how to run it again. Of a sweep: how its arms compare, and how each run stands.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|SWEEP")]
    """Directory of the run, or of the sweep."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
    """The file to write; None writes report.html into the directory."""


def run(arguments: list[str]) -> None:
    """Writes the report and says where."""
    parsed = tyro.cli(Arguments, prog="convjax report", args=arguments)

    # Bokeh and Orbax take a second each to import: not before the arguments are known to be right.
    from convjax import compiled
    from convjax.report import run_page, sweep_page
    from convjax.sweep import record
    from convjax.train.run import Run

    compiled.keep()
    file = parsed.out or parsed.run / "report.html"
    if parsed.run.is_dir() and not os.access(file.parent, os.W_OK):  # what is to go there takes a while
        raise UsageError(f"--out {file} cannot be written: {file.parent} is no directory that can be")
    out = console()

    def say(doing: str) -> None:
        out.print(f"{doing} ...", soft_wrap=True)

    is_sweep = (parsed.run / record.FILE).is_file()
    html = sweep_page.render(parsed.run, say) if is_sweep else run_page.render(Run(parsed.run), say)
    temporary = file.with_name(f".{file.name}.tmp")
    try:
        temporary.write_text(html)
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(f"--out {file} cannot be written: {error.strerror}") from error
    out.print(f"{file}: {len(html.encode()) / 1e6:.1f} MB", soft_wrap=True)
