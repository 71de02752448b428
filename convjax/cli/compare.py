"""`convjax compare SWEEP`: the arms of a sweep in numbers, pictures and words."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from convjax.cli.console import console, rich_table
from convjax.errors import UsageError
from convjax.sweep.statistics import Test

if TYPE_CHECKING:
    from convjax.sweep.comparison import Comparison


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compares the arms of a sweep over their seeds: means with intervals, paired tests, curves, costs, a verdict.

    Prints tables, and saves them as Markdown and CSV, with pictures as PNG and SVG.
    """

    sweep: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SWEEP")]
    """Directory of the sweep."""
    by: tuple[str, ...] = ()
    """Axes to tell arms apart by, as model.norm; the others are averaged over within each seed. None given: all axes
    but seed."""
    metric: str = "test.accuracy"
    """A number of result.json, as test.accuracy or validation.loss; or one of metrics.jsonl, as train.loss:last or
    validation.accuracy:best."""
    baseline: str | None = None
    """The arm that others are compared with, or a part of its name; None takes the first."""
    all_pairs: bool = False
    """Compare each arm with each."""
    test: Test = "t"
    """The paired test: t, Student's, or wilcoxon, signed ranks, which needs 6 seeds to show anything."""
    costs: bool = True
    """Count parameters, multiply-accumulates and seconds, too."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="DIR")] = None
    """Where to write tables and pictures; None writes into SWEEP/compare/METRIC."""
    json: bool = False
    """Print one JSON object instead of tables."""


def run(arguments: list[str]) -> None:
    """Prints the comparison and says where it is saved."""
    parsed = tyro.cli(Arguments, prog="convjax compare", args=arguments)

    # JAX, SciPy and Matplotlib are imported only now: --help need not wait for them.
    from convjax.sweep import plots, table
    from convjax.sweep.comparison import compare

    comparison = compare(
        parsed.sweep,
        metric=parsed.metric,
        by=parsed.by,
        baseline=parsed.baseline,
        all_pairs=parsed.all_pairs,
        test=parsed.test,
        costs=parsed.costs,
    )
    directory = parsed.output or parsed.sweep / "compare" / comparison.metric.name.replace(":", "-")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made ({error.strerror}): give another directory by -o") from error
    pictures = plots.save(comparison, directory)
    tables = table.save(comparison, directory, [path.name for path in pictures if path.suffix == ".png"])
    if parsed.json:
        print(json.dumps(comparison.to_json()))
        return
    _print(comparison)
    names = ", ".join(path.name for path in (*tables, *pictures))
    console().print(f"\nsaved in {directory}: {names}", soft_wrap=True)


def _print(comparison: "Comparison") -> None:
    from convjax.sweep import table, words

    out = console()
    out.print(words.headline(comparison.metric, comparison.arms, comparison.differences), style="bold", soft_wrap=True)
    out.print(rich_table(table.arms(comparison)))
    if comparison.differences:
        out.print(rich_table(table.differences(comparison)))
    if comparison.lost:
        out.print(rich_table(table.lost(comparison)))
    for note in comparison.notes:
        out.print(f"- {note}", soft_wrap=True)
