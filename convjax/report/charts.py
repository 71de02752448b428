"""Charts that can be zoomed, with Bokeh: of numbers alone, no text of a user's goes into them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.embed import components
from bokeh.models import HoverTool
from bokeh.plotting import figure
from bokeh.resources import Resources
from numpy.typing import NDArray

_GREY, _BLUE, _ORANGE = "#808890", "#3b82f6", "#f08c2e"
"""Legible on white and on black."""
_CURVES = {
    "Loss": ("train.loss", "validation.loss"),
    "Accuracy": ("train.accuracy", "validation.accuracy"),
    "Norm of the gradient": ("train.gradient_norm",),
    "Learning rate": ("train.learning_rate",),
}


def library() -> str:
    """Returns Bokeh's scripts, to stand once in a page."""
    return str(Resources(mode="inline", components=["bokeh"]).render())


def drawn(charts: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Returns the script that draws charts, and where each is to stand, by its name."""
    script, places = components(charts)
    return script, places


def curves(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the learning curves from the lines of metrics.jsonl, by title; those of which nothing was logged are left
    out. All have the same axis of steps: zooming one zooms all.
    """
    made: dict[str, Any] = {}
    steps = None
    for title, names in _CURVES.items():
        logged = {}
        for name in names:
            points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
            if points:
                logged[name] = points
        if not logged:
            continue
        chart = _figure("step", title, **({"x_range": steps} if steps else {}))
        steps = steps or chart.x_range
        for (name, points), colour in zip(logged.items(), (_BLUE, _ORANGE), strict=False):
            x, y = zip(*points, strict=True)
            label = name.partition(".")[0]
            chart.line(x, y, color=colour, line_width=2, legend_label=label)
            if len(points) < 60:
                chart.scatter(x, y, color=colour, size=5, legend_label=label)
        _finish(chart)
        if title == "Accuracy":  # which grows into the usual corner
            chart.legend.location = "bottom_right"
        made[title] = chart
    return made


def reliability(bins: tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]) -> Any:
    """Returns the reliability diagram (Guo et al. 2017, arXiv:1706.04599, figure 1) of bins of equal width."""
    counts, right, sums = bins
    width = 1 / len(counts)
    full = counts > 0
    left = np.arange(len(counts))[full] * width
    data = {
        "left": left,
        "right": left + width,
        "accuracy": (right / np.maximum(counts, 1))[full],
        "confidence": (sums / np.maximum(counts, 1))[full],
        "examples": counts[full],
    }
    chart = _figure("confidence", "accuracy", x_range=(0, 1), y_range=(0, 1))
    chart.quad(left="left", right="right", bottom=0, top="accuracy", source=data, color=_BLUE, alpha=0.6)
    chart.scatter("confidence", "accuracy", source=data, color=_ORANGE, size=7)
    chart.line([0, 1], [0, 1], color=_GREY, line_dash="dashed")
    chart.add_tools(HoverTool(tooltips=[(name, f"@{name}") for name in ("examples", "confidence", "accuracy")]))
    return chart


def _figure(x: str, y: str, **options: Any) -> Any:
    chart = figure(
        height=280,
        sizing_mode="stretch_width",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        x_axis_label=x,
        y_axis_label=y,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        **options,
    )
    chart.toolbar.logo = None
    for axis in chart.axis:
        axis.axis_label_text_color = axis.major_label_text_color = _GREY
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = _GREY
    chart.grid.grid_line_color, chart.grid.grid_line_alpha = _GREY, 0.25
    return chart


def _finish(chart: Any) -> None:
    chart.add_tools(HoverTool(tooltips=[("step", "@x"), ("value", "@y")]))
    legend = chart.legend[0]
    legend.background_fill_alpha, legend.border_line_alpha = 0, 0
    legend.label_text_color, legend.click_policy = _GREY, "hide"
