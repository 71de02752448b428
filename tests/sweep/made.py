"""Sweeps made by writing the files of their layout, with the numbers that a test wants."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convjax.data.splits import DataInfo, Normalise
from convjax.digest import digest
from convjax.models import MLP
from convjax.sweep.record import Arm, Sweep
from convjax.train.config import Config
from convjax.train.config_json import to_json
from convjax.train.log import MetricsLog
from convjax.train.metrics import Evaluation
from convjax.train.result import Result

INFO = DataInfo(
    name="digits",
    version="1",
    image=(8, 8, 1),
    class_names=("a", "b"),
    examples={"train": 100, "validation": 10, "test": 10},
    normalise=Normalise((0.5,), (0.25,)),
    fingerprint={},
)


def sweep(path: Path, axes: Mapping[str, Any], values: Mapping[tuple[Any, ...], Any]) -> Path:
    """Writes a sweep.

    Args:
        path: its directory.
        axes: sequence of values by axis.
        values: test accuracy by combination; a text is the last line of the log of a run that failed; a combination
            that is absent has not been run.
    """
    path.mkdir()
    runs = []
    for combination in itertools.product(*axes.values()):
        settings = dict(zip(axes, combination, strict=True))
        arm = Arm.of(path, digest(json.dumps(settings).encode()), settings)
        runs.append(arm)
        outcome = values.get(combination)
        if isinstance(outcome, str):
            fail(arm, outcome)
        elif outcome is not None:
            finish(arm, outcome)
    Sweep(path, "experiments/x.py", {name: tuple(axis) for name, axis in axes.items()}, tuple(runs)).write()
    return path


def evaluation(split: str, accuracy: float) -> Evaluation:
    return Evaluation(split, 10, 1 - accuracy, accuracy, min(1.0, accuracy + 0.1), 0.05, {"a": accuracy, "b": None}, [])


def finish(arm: Arm, accuracy: float, hidden: int = 4) -> None:
    """Writes the files of a run that has finished."""
    arm.directory.mkdir(parents=True, exist_ok=True)
    write(arm.directory, "config.json", to_json(Config(MLP(hidden=(hidden,), num_classes=2))))
    write(arm.directory, "data.json", dataclasses.asdict(INFO))
    with MetricsLog(arm.directory) as log:
        for step in (10, 20, 30):
            log.write(step, {"train.loss": 1 / step, "train.accuracy": accuracy * step / 30})
            log.write(step, {"validation.loss": 2 / step, "validation.accuracy": accuracy * step / 40})
    result = Result(30, evaluation("validation", accuracy - 0.01), evaluation("test", accuracy))
    write(arm.directory, "result.json", dataclasses.asdict(result))


def fail(arm: Arm, line: str) -> None:
    """Writes the files of a run whose process failed."""
    arm.log.parent.mkdir(parents=True, exist_ok=True)
    arm.log.write_text(f"step 1\nconvjax: failed: {line}\n")
    arm.exit.write_text("1\n")
    arm.directory.mkdir(parents=True, exist_ok=True)
    if "diverged" in line:
        with MetricsLog(arm.directory) as log:
            log.write(10, {"train.loss": 2.0, "train.accuracy": 0.1})
            log.write(12, {"train.loss": float("nan"), "train.accuracy": 0.1})


def write(directory: Path, name: str, content: Any) -> None:
    (directory / name).write_text(json.dumps(content))
