"""The report of a run."""

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convjax.errors import RunError, UsageError
from convjax.report import charts, page
from convjax.report.look import Look, look
from convjax.train.metrics import Evaluation
from convjax.train.plan import Plan
from convjax.train.result import Result
from convjax.train.run import Run

_MOST_CLASSES = 20
"""Up to which the whole confusion matrix is shown; else that of the worst."""


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Counts by true class (rows) and answer (columns), of some of the classes.

    Attributes:
        names: of the classes.
        counts: `[classes][classes]`.
        accuracies: of each class, None for one without an example.
        left_out: number of classes that are not shown.
    """

    names: list[str]
    counts: list[list[int]]
    accuracies: list[float | None]
    left_out: int


def confusion(evaluation: Evaluation) -> Confusion:
    """Returns the confusion matrix; of more than 20 classes that of the 20 with the lowest accuracy."""
    names = list(evaluation.per_class)
    shares = [evaluation.per_class[name] for name in names]
    chosen = list(range(len(names)))
    if len(names) > _MOST_CLASSES:
        chosen = sorted(chosen, key=lambda i: (shares[i] is None, shares[i] or 0.0))[:_MOST_CLASSES]
    return Confusion(
        names=[names[i] for i in chosen],
        counts=[[evaluation.confusion[i][j] for j in chosen] for i in chosen],
        accuracies=[shares[i] for i in chosen],
        left_out=len(names) - len(chosen),
    )


def render(run: Run, say: Callable[[str], None] = lambda doing: None) -> str:
    """Returns the report of a run as one HTML page that needs nothing else.

    Args:
        run: the run, finished or not; nothing is written to it.
        say: told what is being done, where that takes a while.

    Raises:
        UsageError: the directory holds no run.
        RunError: something of it is damaged.
    """
    config, info, environment = run.read_config(), run.read_info(), run.read_json("environment.json")
    lines = run.metrics()
    result = Result.from_json(run.read_json(run.result.name)) if run.result.is_file() else None
    done = max([run.latest_step(), *(line["step"] for line in lines)], default=0)
    seen: Look | None = None
    missing = ""
    try:
        seen = look(run, say)
    except (RunError, UsageError) as error:  # as of a run that has diverged: of which all the rest is worth seeing
        missing = str(error)
    made = charts.curves(lines)
    if seen is not None:
        made["Reliability"] = charts.reliability(seen.bins)
    script, places = charts.drawn(made) if made else ("", {})
    return page.render(
        "run.html.j2",
        title=f"{run.path.resolve().name}: convjax report",
        name=run.path.resolve().name,
        model=type(config.model).__name__,
        config=page.flat(run.read_raw_config()),
        info=info,
        environment=environment,
        commands=_commands(environment),
        experiment=run.experiment(),
        result=result,
        steps=Plan.of(config, info).steps,
        done=done,
        look=seen,
        missing=missing,
        confusion=confusion(seen.evaluation) if seen else None,
        layers=_layers(seen) if seen else [],
        library=charts.library() if made else "",
        script=script,
        places=places,
    )


def _commands(environment: dict[str, Any]) -> list[str]:
    """Returns the commands that the run was begun and gone on with."""
    every = [environment["command"], *(entry["command"] for entry in environment["resumed"])]
    return [shlex.join([Path(first).name, *rest]) for first, *rest in every]


def _layers(seen: Look) -> list[tuple[str, list[tuple[float, float, float]]]]:
    """Returns of each layer, at each checkpoint, the norms of parameters and gradient, and the update's share."""
    if not seen.sizes:
        return []
    return [
        (
            name,
            [
                (each.parameters[name], each.gradients[name], each.updates[name] / (each.parameters[name] or np.nan))
                for each in seen.sizes
            ],
        )
        for name in seen.sizes[0].parameters
    ]
