"""A comparison over two numeric axes as a heat map."""

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from convjax.sweep import cells
from convjax.sweep.comparison import ArmRow, Comparison
from convjax.sweep.record import Value, distinct

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_COLOURS = "cividis"
"""Looks the same to people who see colours otherwise (Nunez et al. 2018, doi:10.1371/journal.pone.0199239)."""
_PANELS_A_ROW = 3
_MOST_WRITTEN = 12
"""Columns up to which each cell tells its number."""


def draw(comparison: Comparison) -> "Figure | None":
    """Draws means over the first two numeric axes that arms differ in, a panel for each combination of the others.

    Returns:
        The picture; None where there are no two such axes.
    """
    values = {axis: distinct([arm.settings[axis] for arm in comparison.arms]) for axis in comparison.by}
    numeric = [axis for axis in comparison.by if len(values[axis]) > 1 and all(map(_is_number, values[axis]))]
    if len(numeric) < 2:
        return None
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    column, row = (axis for axis in numeric[:2])
    others = [axis for axis in comparison.by if axis not in (column, row)]
    xs, ys = sorted(values[column]), sorted(values[row], reverse=True)
    panels = list(itertools.product(*(values[axis] for axis in others)))
    across = min(len(panels), _PANELS_A_ROW)
    down = math.ceil(len(panels) / across)
    size = (max(2.6, 0.75 * len(xs)) * across + 1.6, max(2.2, 0.55 * len(ys)) * down + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    means = [comparison.metric.scaled(a.summary.mean) for a in comparison.arms if a.summary.mean is not None]
    colours = Normalize(min(means), max(means) if max(means) > min(means) else min(means) + 1)
    for place, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(down, across, place)
        fixed = dict(zip(others, panel, strict=True))
        arms = {
            (xs.index(arm.settings[column]), ys.index(arm.settings[row])): arm
            for arm in comparison.arms
            if all(arm.settings[axis] == value for axis, value in fixed.items())
        }
        _panel(axes, comparison, arms, (len(xs), len(ys)), colours)
        axes.set_xticks(range(len(xs)), [cells.value(x) for x in xs])
        axes.set_yticks(range(len(ys)), [cells.value(y) for y in ys])
        axes.set_xlabel(column)
        axes.set_ylabel(row)
        axes.set_title(", ".join(f"{axis}={cells.value(value)}" for axis, value in fixed.items()), fontsize=9)
    figure.colorbar(ScalarMappable(colours, _COLOURS), ax=figure.axes, label=f"mean {comparison.metric.title}")
    return figure


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _panel(
    axes: "Axes",
    comparison: Comparison,
    arms: dict[tuple[int, int], ArmRow],
    size: tuple[int, int],
    colours: "Normalize",
) -> None:
    """Draws the arms at their (column, row); cells without a value stay grey."""
    metric = comparison.metric
    grid = np.full((size[1], size[0]), np.nan)
    for (x, y), arm in arms.items():
        if arm.summary.mean is not None:
            grid[y, x] = metric.scaled(arm.summary.mean)
    axes.set_facecolor("0.85")
    axes.imshow(np.ma.masked_invalid(grid), cmap=_COLOURS, norm=colours, aspect="auto")
    for (x, y), arm in arms.items() if size[0] <= _MOST_WRITTEN else ():
        if arm.summary.mean is None:
            lost = sum(run.diverged for run in arm.runs)
            text, colour = "diverged" if lost == len(arm.runs) else "no value", "black"
        else:
            deviation = arm.summary.deviation
            spread = metric.show(deviation) if metric.is_share or deviation is None else f"{deviation:.2g}"
            text = metric.show(arm.summary.mean) + (f"\n± {spread}" if spread else "")
            # The colours are dark below their middle.
            colour = "white" if colours(grid[y, x]) < 0.5 else "black"
        axes.text(x, y, text, ha="center", va="center", color=colour, fontsize=7)
    for spine in axes.spines.values():
        spine.set_visible(False)
