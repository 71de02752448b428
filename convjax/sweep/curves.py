"""Learning curves of a comparison's arms: mean and interval over the seeds, step by step."""

import dataclasses

from convjax.sweep.comparison import SEED, ArmRow, Comparison
from convjax.sweep.metric import Metric
from convjax.sweep.record import Value
from convjax.sweep.statistics import Summary, summarise
from convjax.train.run import Run


@dataclasses.dataclass(frozen=True)
class Curve:
    """Attributes:
    label: of the arm.
    steps: at which at least one run has a value, rising.
    points: the seeds' values in numbers at each of them.
    """

    label: str
    steps: tuple[int, ...]
    points: tuple[Summary, ...]


def fields(metric: Metric) -> tuple[str, str]:
    """Returns what of metrics.jsonl is drawn beside a metric: losses beside a loss, else accuracies."""
    leaf = "loss" if metric.field.endswith("loss") else "accuracy"
    return f"train.{leaf}", f"validation.{leaf}"


def read(comparison: Comparison, field: str) -> tuple[Curve, ...]:
    """Returns the curves of the arms of which a run that counts has logged a field.

    Within each seed, values are averaged over axes that arms are not told apart by.

    Raises:
        RunError: metrics.jsonl of a run is damaged.
    """
    found = (_curve(arm, field) for arm in comparison.arms)
    return tuple(curve for curve in found if curve.steps)


def _curve(arm: ArmRow, field: str) -> Curve:
    logged: dict[int, dict[Value, list[float]]] = {}
    for run in arm.runs:
        if run.value is None:
            continue
        for line in Run(run.directory).metrics():
            if line.get(field) is not None:
                logged.setdefault(line["step"], {}).setdefault(run.settings.get(SEED), []).append(line[field])
    steps = tuple(sorted(logged))
    points = (summarise([sum(v) / len(v) for v in logged[step].values()]) for step in steps)
    return Curve(arm.label, steps, tuple(points))
