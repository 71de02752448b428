"""A comparison as tables: for the terminal, as Markdown, as CSV."""

from collections.abc import Sequence
from pathlib import Path

from convjax.sweep import cells, words
from convjax.sweep.cells import Table, csv_text
from convjax.sweep.comparison import Comparison
from convjax.sweep.compute import TITLES
from convjax.sweep.metric import Metric

MARKDOWN = "comparison.md"


def arms(comparison: Comparison) -> Table:
    """Returns the table of arms: n, share of diverged runs if any has, mean, standard deviation, interval, costs."""
    metric = comparison.metric
    diverges = any(run.diverged for run in comparison.lost)
    rows = []
    for arm in comparison.arms:
        found = arm.summary
        row: tuple[str, ...] = (arm.label, str(found.n))
        if diverges:
            row += (f"{sum(run.diverged for run in arm.runs)} of {len(arm.runs)}",)
        row += (metric.show(found.mean), metric.show(found.deviation), _interval(metric, found.interval))
        if arm.cost is not None:
            row += tuple(_cost(getattr(arm.cost, field)) for field in TITLES)
            row += (", ".join(TITLES[field] for field in arm.fronts),)
        rows.append(row)
    columns: tuple[str, ...] = (
        ", ".join(comparison.by) or "arm",
        "n",
        *(["diverged"] if diverges else []),
        f"mean {metric.title}",
        "std. dev.",
        "95 % interval",
    )
    if comparison.has_costs:
        columns += (*TITLES.values(), "Pareto front by")
    return Table(columns, tuple(rows), ends=comparison.has_costs)


def differences(comparison: Comparison) -> Table:
    """Returns the table of paired differences, the verdict in the last column."""
    metric = comparison.metric
    rows = []
    for row in comparison.differences:
        found = row.paired.difference
        numbers = (str(found.n), metric.show(found.mean, sign=True), _interval(metric, found.interval, sign=True))
        effect = "" if row.paired.effect is None else f"{row.paired.effect:+.2f}"
        tested = (words.p_value(row.paired.p), words.p_value(row.p), effect)
        rows.append((row.arm, row.reference, *numbers, *tested, row.verdict))
    columns = ("arm", "against", "n", metric.difference_title, "95 % interval", "p", "p (Holm)", "d_z", "verdict")
    return Table(columns, tuple(rows), texts=2)


def lost(comparison: Comparison) -> Table:
    """Returns the table of the runs that do not count, and why."""
    rows = (
        (run.name, ", ".join(f"{axis}={cells.value(setting)}" for axis, setting in run.settings.items()), run.problem)
        for run in comparison.lost
    )
    return Table(("run", "settings", "why it does not count"), tuple(rows), texts=2)


def _interval(metric: Metric, interval: tuple[float, float] | None, *, sign: bool = False) -> str:
    return "" if interval is None else " to ".join(metric.show(end, sign=sign) for end in interval)


def _cost(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(comparison: Comparison, pictures: Sequence[str] = ()) -> str:
    """Writes a comparison as Markdown.

    Args:
        comparison: what to write.
        pictures: names of image files beside it, to be shown.
    """
    headline = words.headline(comparison.metric, comparison.arms, comparison.differences)
    parts = [f"# {comparison.metric.name} of {comparison.path.name}", f"{headline}."]
    parts.append(_markdown(arms(comparison)))
    if comparison.differences:
        test = {"t": "Student's t test", "wilcoxon": "Wilcoxon's signed-rank test"}[comparison.test]
        parts.append(f"Paired differences over seeds, {test}:")
        parts.append(_markdown(differences(comparison)))
    if comparison.lost:
        parts.append(_markdown(lost(comparison)))
    parts += ["\n".join(f"- {_escaped(note)}" for note in comparison.notes)] if comparison.notes else []
    parts += [f"![{Path(name).stem}]({name})" for name in pictures]
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    rule = ["---:" if table.is_number(i) else "---" for i in range(len(table.columns))]
    lines = [[_escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))


def _escaped(text: str) -> str:
    """Returns a text whose characters mean nothing to Markdown's tables and tags."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def save(comparison: Comparison, directory: Path, pictures: Sequence[str] = ()) -> list[Path]:
    """Writes comparison.md, arms.csv, differences.csv and runs.csv; returns their paths.

    Raises:
        OSError: one cannot be written.
    """
    found = {
        MARKDOWN: markdown(comparison, pictures),
        "arms.csv": csv_text(_arm_records(comparison)),
        "differences.csv": csv_text(_difference_records(comparison)),
        "runs.csv": csv_text(_run_records(comparison)),
    }
    for name, text in found.items():
        (directory / name).write_text(text)
    return [directory / name for name in found]


def _arm_records(comparison: Comparison) -> list[list[object]]:
    rows: list[list[object]] = [
        ["arm", *comparison.by, "n", "mean", "std", "low", "high", *TITLES, *(f"pareto_{f}" for f in TITLES)]
    ]
    for arm in comparison.arms:
        found = arm.summary
        numbers = [found.n, found.mean, found.deviation, *(found.interval or (None, None))]
        costs = [None if arm.cost is None else getattr(arm.cost, field) for field in TITLES]
        settings = [cells.value(setting) for setting in arm.settings.values()]
        rows.append([arm.label, *settings, *numbers, *costs, *(int(field in arm.fronts) for field in TITLES)])
    return rows


def _difference_records(comparison: Comparison) -> list[list[object]]:
    rows: list[list[object]] = [
        ["arm", "reference", "n", "mean", "std", "low", "high", "p", "p_holm", "d_z", "needed", "seeds", "verdict"]
    ]
    for row in comparison.differences:
        found = row.paired.difference
        numbers = [found.n, found.mean, found.deviation, *(found.interval or (None, None))]
        tested = [row.paired.p, row.p, row.paired.effect, row.needed]
        rows.append([row.arm, row.reference, *numbers, *tested, " ".join(map(cells.value, row.seeds)), row.verdict])
    return rows


def _run_records(comparison: Comparison) -> list[list[object]]:
    runs = [(arm.label, run) for arm in comparison.arms for run in arm.runs]
    axes = list(runs[0][1].settings)
    rows: list[list[object]] = [["run", "arm", *axes, "state", comparison.metric.name, "problem"]]
    for label, run in runs:
        settings = [cells.value(run.settings[axis]) for axis in axes]
        rows.append([run.name, label, *settings, run.state, run.value, run.problem])
    return rows
