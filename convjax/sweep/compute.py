"""What a run costs, and which arms give the most for their cost."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from convjax.errors import RunError, UsageError
from convjax.train import events
from convjax.train.run import Run


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network and its training cost.

    Attributes:
        parameters: number of parameters.
        multiply_accumulates: of one image's way through the network in evaluation mode.
        seconds: that the training took, by `convjax.train.events.seconds`.
    """

    parameters: float | None
    multiply_accumulates: float | None
    seconds: float | None


TITLES = {"parameters": "parameters", "multiply_accumulates": "multiply-accumulates", "seconds": "seconds"}
"""What the fields of `Cost` are called in tables and pictures."""


class Costs:
    """Finds out costs; the same network is counted once."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[int, int]] = {}

    def of(self, directory: Path) -> Cost:
        """Returns what a run cost; what cannot be found out any more is None."""
        parameters, products = self._count(Run(directory)) or (None, None)
        return Cost(parameters, products, events.seconds(directory))

    def _count(self, run: Run) -> tuple[int, int] | None:
        # Most of the time of a comparison goes into this import and these counts.
        from convjax.inspect import count

        try:
            image = run.read_info().image
            key = json.dumps([run.read_raw_config()["model"], image])
            if key not in self._counted:
                model = run.read_config().model
                self._counted[key] = count.parameters(model, image), count.multiply_accumulates(model, image)
        except (UsageError, RunError):  # a file is damaged, or the model's class is there no longer
            return None
        return self._counted[key]


def mean(costs: Sequence[Cost]) -> Cost:
    """Returns the mean cost of several runs, leaving out what is not known."""

    def of(field: str) -> float | None:
        known = [value for cost in costs if (value := getattr(cost, field)) is not None]
        return sum(known) / len(known) if known else None

    return Cost(**{field.name: of(field.name) for field in dataclasses.fields(Cost)})


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the points that no other beats: none has less cost and no less gain, or more gain and no more cost.

    Args:
        points: (cost, gain) of each; less cost is better, and more gain.

    Returns:
        Their indices by rising cost, which is by rising gain, too; equal points are all of them or none.
    """

    def beaten(cost: float, gain: float) -> bool:
        return any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)

    return sorted((i for i, point in enumerate(points) if not beaten(*point)), key=lambda i: points[i])
