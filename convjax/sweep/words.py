"""What the numbers of a comparison say, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convjax.sweep import cells, statistics
from convjax.sweep.metric import Metric
from convjax.sweep.record import Sweep, Value
from convjax.sweep.statistics import Paired, Test

if TYPE_CHECKING:
    from convjax.sweep.comparison import ArmRow, DifferenceRow


def short(axes: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each axis' name, the whole name where that is another's, too."""
    last = Counter(axis.rpartition(".")[2] for axis in axes)
    return {axis: leaf if last[leaf := axis.rpartition(".")[2]] == 1 else axis for axis in axes}


def labels(arms: Sequence[Mapping[str, Value]]) -> list[str]:
    """Returns what to call arms with these values by axis: `batch`, or `norm=batch, lr=0.1` with several axes."""
    found = []
    for settings in arms:
        names = short(tuple(settings))
        if len(settings) == 1:
            found.append(cells.value(*settings.values()))
        else:
            parts = [f"{names[axis]}={cells.value(setting)}" for axis, setting in settings.items()]
            found.append(", ".join(parts) or "all runs")
    return found


def p_value(p: float | None) -> str:
    """Writes a p-value; nothing for None."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def verdict(paired: Paired, p: float | None, needed: int | None, metric: Metric, test: Test) -> str:
    """Says what a paired comparison shows.

    Args:
        paired: the differences.
        p: p-value, corrected; None where nothing could be tested.
        needed: number of seeds that would show the observed difference; None for more than 10,000.
        metric: what is compared.
        test: the test that p is of.
    """
    n, mean = paired.difference.n, paired.difference.mean
    if mean is None:
        return "no common seed: cannot be compared"
    unit = " points" if metric.is_share else ""
    observed = f"{metric.show(mean, sign=True)}{unit}"
    if n == 1:
        return f"no difference shown with n = 1: nothing can be tested (observed {observed})"
    if p is None:
        if mean == 0:
            return f"no difference shown with n = {n}: equal on each seed"
        return f"the same difference, {observed}, on each of {n} seeds: without spread nothing can be tested"
    if p < statistics.ALPHA:
        size = metric.show(abs(mean))
        return f"{'higher' if mean > 0 else 'lower'} by {size}{unit} (p {_equals(p)}, n = {n})"
    said = f"no difference shown with n = {n} (p {_equals(p)})"
    if test == "wilcoxon" and statistics.smallest_p(n, test) >= statistics.ALPHA:
        said += f": by ranks, n = {n} cannot show any"
    if needed is None:
        return f"{said}; the observed {observed} would take more than {statistics.MOST_NEEDED:,} seeds to see"
    return f"{said}; the observed {observed} would take about n = {needed} to see" if needed > n else said


def _equals(p: float) -> str:
    return p_value(p) if p < 0.001 else f"= {p_value(p)}"


def headline(metric: Metric, arms: Sequence["ArmRow"], differences: Sequence["DifferenceRow"]) -> str:
    """Says in one sentence how many comparisons show a difference."""
    if not differences:
        return f"{metric.name}: one arm, there is nothing to compare it with"
    shown = sum(row.p is not None and row.p < statistics.ALPHA for row in differences)
    counts = sorted({row.paired.difference.n for row in differences} - {0}) or [0]
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    if not shown:
        return f"{metric.name} of {len(arms)} arms: no difference shown with {n}"
    return f"{metric.name} of {len(arms)} arms: {shown} of {len(differences)} comparisons show a difference, with {n}"


def notes(
    sweep: Sweep, axes: Sequence[str], arms: Sequence["ArmRow"], differences: Sequence["DifferenceRow"]
) -> tuple[str, ...]:
    """Says what must be known to read the numbers of a comparison."""
    said = []
    if others := [axis for axis in sweep.axes if axis not in axes and axis != "seed" and len(sweep.axes[axis]) > 1]:
        said.append(f"values are averaged over {', '.join(others)} within each seed")
    if "seed" not in sweep.axes:
        said.append("the sweep has no axis seed: each arm has one value, and nothing can be tested")
    for arm in arms:
        if lost := [run for run in arm.runs if run.value is None]:
            kinds = Counter(run.outcome for run in lost)
            counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            # Nothing is flattered where nothing is left.
            bad = kinds["diverged"] or kinds["failed"]
            flatters = ": those that count may flatter it" if bad and arm.summary.n else ""
            said.append(f"{arm.label}: {len(lost)} of {len(arm.runs)} runs do not count ({counted}){flatters}")
    if len({(arm.summary.n, sum(run.value is not None for run in arm.runs)) for arm in arms}) > 1:
        said.append("differences are over the seeds and settings that both arms have, n tells how many seeds")
    tested = sum(row.p is not None for row in differences)
    if tested > 1:
        said.append(f"p-values are corrected for {tested} comparisons (Holm), the intervals are not")
    return tuple(said)
