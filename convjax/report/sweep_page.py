"""The report of a sweep."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from convjax.errors import UsageError
from convjax.report import page
from convjax.sweep import cells, plots, table, words
from convjax.sweep.comparison import Comparison, compare
from convjax.sweep.record import Arm, Sweep

_SHOWS = {
    "arms": "Each run and each arm's mean with its interval",
    "curves": "Learning curves of the arms",
    "heat_map": "The metric over two axes",
    "cost": "The metric against what each arm costs",
}


@dataclasses.dataclass(frozen=True)
class Compared:
    """A comparison as a page shows it: one sentence, titled tables, pictures with what they show, and notes."""

    headline: str
    tables: list[tuple[str, cells.Table]]
    pictures: list[tuple[str, Image.Image]]
    notes: tuple[str, ...]


def render(path: Path, say: Callable[[str], None] = lambda doing: None) -> str:
    """Returns the report of a sweep as one HTML page that needs nothing else.

    Args:
        path: the sweep's directory, whether all of its runs are finished or not; nothing is written to it.
        say: told what is being done.

    Raises:
        UsageError: the directory holds no sweep.
        RunError: something of it is damaged.
    """
    sweep = Sweep.read(path)
    say(f"comparing the {len(sweep.runs)} runs of the sweep")
    compared: Compared | None = None
    missing = ""
    try:
        compared = _compared(compare(path))
    except UsageError as error:
        missing = str(error)
    copy = path / "experiment.py"
    return page.render(
        "sweep.html.j2",
        title=f"{path.resolve().name}: convjax report",
        name=path.resolve().name,
        sweep=sweep,
        states=[(arm, arm.state, _last_line(arm)) for arm in sweep.runs],
        compared=compared,
        missing=missing,
        experiment=copy.read_text(errors="replace") if copy.is_file() else "",
        library="",
        script="",
        places={},
    )


def _compared(comparison: Comparison) -> Compared:
    tables = [("Arms", table.arms(comparison))]
    if comparison.differences:
        tables.append(("Differences", table.differences(comparison)))
    if comparison.lost:
        tables.append(("Runs without a value", table.lost(comparison)))
    pictures = []
    with tempfile.TemporaryDirectory() as directory:
        for file in plots.save(comparison, Path(directory)):
            if file.suffix == ".png":
                with Image.open(file) as picture:
                    pictures.append((_SHOWS[file.stem], picture.copy()))
    headline = words.headline(comparison.metric, comparison.arms, comparison.differences)
    return Compared(headline, tables, pictures, comparison.notes)


def _last_line(arm: Arm) -> str:
    """Returns what a run that failed said last."""
    return " ".join(arm.last_lines(1)) if arm.state == "failed" else ""
