"""Pictures of a comparison: every seed a dot, learning curves, gain against cost."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convjax.sweep import compute, curves, heat_map, words
from convjax.sweep.comparison import Comparison
from convjax.sweep.metric import Metric
from convjax.sweep.statistics import Summary

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Ten that people who see colours otherwise tell apart, too (Petroff 2021, arXiv:2107.02270)."""
_STYLE = {
    "svg.hashsalt": "convjax",  # equal comparisons give equal files; without it names are drawn by chance
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}
_LINES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")
_LABEL_WIDTH = 36
"""Characters after which labels are wrapped."""
_LINE = 0.17
"""Height of a line of text in inches."""


def save(comparison: Comparison, directory: Path) -> list[Path]:
    """Draws whatever there is to draw, as PNG and SVG; returns the paths.

    Raises:
        OSError: a file cannot be written.
    """
    import matplotlib as mpl

    drawn: dict[str, Callable[[Comparison], Figure | None]] = {
        "arms": arms,
        "curves": learning_curves,
        "heat_map": heat_map.draw,
        "cost": costs,
    }
    paths = []
    # Equal comparisons give equal files: SVG would otherwise hold the date, and names drawn by chance.
    with mpl.rc_context(
        {"svg.hashsalt": "convjax", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    ):
        for name, draw in drawn.items():
            if (figure := draw(comparison)) is None:
                continue
            for suffix in (".png", ".svg"):
                path = directory / f"{name}{suffix}"
                figure.savefig(path, dpi=150, metadata={"Date": None} if suffix == ".svg" else {})
                paths.append(path)
    return paths


def _figure(width: float, height: float, comparison: Comparison) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    headline = words.headline(comparison.metric, comparison.arms, comparison.differences)
    figure.suptitle("\n".join(textwrap.wrap(headline, int(13 * width))), fontsize=10)
    return figure


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, _LABEL_WIDTH)[:3])


def arms(comparison: Comparison) -> "Figure":
    """Draws a row for each arm: every seed a dot, and below it the mean with its 95 % interval."""
    metric, rows = comparison.metric, comparison.arms
    labels = [f"{_wrapped(arm.label)}\n(n = {arm.summary.n})" for arm in rows]
    lines = max(label.count("\n") + 2 for label in labels)
    figure = _figure(8, 1.3 + lines * _LINE * len(rows), comparison)
    axes = figure.add_subplot()
    for i, arm in enumerate(rows):
        if arm.summary.mean is None:
            axes.text(0.01, i, "no run counts", transform=axes.get_yaxis_transform(), va="center", color="0.4")
            continue
        colour = COLOURS[i % len(COLOURS)]
        values = [metric.scaled(value) for value in arm.values.values()]
        axes.plot(values, [i - 0.16] * len(values), "o", color=colour, alpha=0.6, markeredgewidth=0)
        mean, below, above = _mean(metric, arm.summary)
        bars = [[below], [above]]
        axes.errorbar(mean, i + 0.16, xerr=bars, fmt="D", color=colour, capsize=4, markersize=5)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(*_limits(comparison))
    axes.set_xlabel(f"{metric.title}; dots: seeds, diamonds: means with 95 % intervals")
    axes.grid(axis="x", color="0.9")
    return figure


def _mean(metric: Metric, found: Summary) -> tuple[float, float, float]:
    """Returns a mean, and how far the interval reaches below and above it; not at all where there is none."""
    mean = found.mean or 0.0
    low, high = found.interval or (mean, mean)
    return metric.scaled(mean), metric.scaled(mean - low), metric.scaled(high - mean)


def _limits(comparison: Comparison) -> tuple[float, float]:
    """Returns what of the metric to show: all values, and of intervals as much again on each side as values take.

    An interval of two seeds is 12.7 times as wide as their distance, and would leave nothing else to be seen.
    """
    metric = comparison.metric
    values = [metric.scaled(value) for arm in comparison.arms for value in arm.values.values()]
    ends = [metric.scaled(end) for arm in comparison.arms for end in arm.summary.interval or ()]
    low, high = min(values), max(values)
    room = (high - low) or abs(high) / 10 or 1.0
    low, high = max(min(low, *ends, low), low - room), min(max(high, *ends, high), high + room)
    if metric.is_share:
        low, high = max(low, 0.0), min(high, 100.0)
    margin = ((high - low) or room) / 20
    return low - margin, high + margin


def learning_curves(comparison: Comparison) -> "Figure | None":
    """Draws training and validation over steps, mean and 95 % interval over seeds; None where nothing is logged."""
    from matplotlib.ticker import MaxNLocator

    found = [(field, curves.read(comparison, field)) for field in curves.fields(comparison.metric)]
    found = [(field, drawn) for field, drawn in found if drawn]
    if not found:
        return None
    figure = _figure(4.2 * len(found) + 2, 4, comparison)
    places = {arm.label: i for i, arm in enumerate(comparison.arms)}
    for place, (field, drawn) in enumerate(found, start=1):
        axes = figure.add_subplot(1, len(found), place)
        metric = Metric.parse(f"{field}:last")
        every = []
        for curve in drawn:
            i = places[curve.label]
            colour, line = COLOURS[i % len(COLOURS)], _LINES[i // len(COLOURS) % len(_LINES)]
            means, below, above = np.array([_mean(metric, point) for point in curve.points]).T
            label = _wrapped(curve.label)
            if len(curve.steps) == 1:
                axes.errorbar(curve.steps, means, [below, above], fmt="o", color=colour, label=label, capsize=4)
            else:
                axes.plot(curve.steps, means, line, color=colour, label=label, linewidth=1.3)
                axes.fill_between(curve.steps, means - below, means + above, color=colour, alpha=0.15, linewidth=0)
            every += means.tolist()
        room = (max(every) - min(every)) / 5 or 1.0
        axes.set_ylim(min(every) - room, max(every) + room)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("step")
        axes.set_ylabel(f"{field} (%)" if metric.is_share else field)
        axes.grid(color="0.9")
    _legend(figure)
    return figure


def costs(comparison: Comparison) -> "Figure | None":
    """Draws the metric against each cost that differs between arms, with the Pareto front; None where none does."""
    shown = [
        field
        for field in compute.TITLES
        if len({getattr(arm.cost, field) for arm in comparison.arms if arm.cost and getattr(arm.cost, field)}) > 1
    ]
    if not shown:
        return None
    figure = _figure(3.4 * len(shown) + 2.2, 4, comparison)
    for place, field in enumerate(shown, start=1):
        axes = figure.add_subplot(1, len(shown), place)
        _cost(axes, comparison, field)
        axes.set_xlabel(compute.TITLES[field])
        if place == 1:
            axes.set_ylabel(comparison.metric.title)
    _legend(figure)
    return figure


def _cost(axes: "Axes", comparison: Comparison, field: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    metric, front, known = comparison.metric, [], []
    for i, arm in enumerate(comparison.arms):
        cost = None if arm.cost is None else getattr(arm.cost, field)
        if not cost or arm.summary.mean is None:
            continue
        mean, below, above = _mean(metric, arm.summary)
        axes.errorbar(
            cost,
            mean,
            yerr=[[below], [above]],
            fmt=_MARKERS[i // len(COLOURS) % len(_MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            label=_wrapped(arm.label),
            elinewidth=1,
        )
        known.append(cost)
        if field in arm.fronts:
            front.append((cost, mean))
    if front:
        xs, ys = zip(*sorted(front), strict=True)
        axes.plot(xs, ys, "-", color="0.5", linewidth=1, zorder=0, label="Pareto front, by means")
        axes.plot(xs, ys, "o", color="none", markeredgecolor="0.3", markersize=11, zorder=0)
    if max(known) > 10 * min(known):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=6))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    # 3M parameters, but no "3m" seconds, which would be taken for minutes.
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}") if field == "seconds" else EngFormatter(sep=""))
    axes.set_ylim(*_limits(comparison))
    axes.grid(color="0.9")


def _legend(figure: "Figure") -> None:
    """Puts one legend for all of a figure's axes beside them."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    lines = sum(label.count("\n") + 1 for label in found)
    figure.set_figheight(max(figure.get_figheight(), 0.6 + _LINE * lines + 0.05 * len(found)))
    figure.legend(list(found.values()), list(found), loc="outside right upper", frameon=False, fontsize=8)
