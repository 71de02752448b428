"""What the runs of a sweep ended with: a number each, or the reason why there is none."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from convjax.errors import UsageError, nearest
from convjax.sweep.metric import Metric, available
from convjax.sweep.record import Arm, State, Value
from convjax.train.run import Run

_LOG_LINES = 12
"""Lines at the end of a log among which its error is looked for."""
_LONGEST_REASON = 160


@dataclasses.dataclass(frozen=True)
class RunRow:
    """A run of a sweep.

    Attributes:
        name: of its directory.
        directory: its run directory.
        settings: value by axis.
        state: how it stands.
        value: the metric; None where it has none.
        problem: why it has none; empty where it has one.
    """

    name: str
    directory: Path
    settings: Mapping[str, Value]
    state: State
    value: float | None
    problem: str

    @property
    def diverged(self) -> bool:
        """Whether its loss or gradient did not stay finite."""
        return self.problem.startswith("diverged")

    @property
    def outcome(self) -> str:
        """How it stands, in a word or two: its state, or how it came to it."""
        if self.state == "finished" and self.value is None:
            return "without a value"
        return next((word for word in ("diverged", "pruned") if self.problem.startswith(word)), self.state)


def read(runs: Sequence[Arm], metric: Metric) -> tuple[RunRow, ...]:
    """Returns a metric of each run of a sweep.

    Raises:
        UsageError: no run has it.
        RunError: a file of a finished run is damaged.
    """
    rows = tuple(_read(run, metric) for run in runs)
    if all(row.value is None for row in rows):
        finished = [Run(row.directory) for row in rows if row.state == "finished"]
        if not finished:
            raise UsageError(f"none of the sweep's {len(rows)} runs has finished: there is nothing to compare yet")
        known = available(finished)
        if metric.name not in known and not (metric.source in ("best", "tail") and f"{metric.field}:last" in known):
            raise UsageError(f"--metric is {metric.name!r}, which no run has: {nearest(metric.name, known)}")
        raise UsageError(f"--metric is {metric.name!r}, which is a finite number in no run")
    return rows


def _read(run: Arm, metric: Metric) -> RunRow:
    state = run.state
    value = metric.of(Run(run.directory)) if state == "finished" else None
    why = ""
    if value is None:
        why = f"has no {metric.name} that is a finite number" if state == "finished" else problem(run, state)
    return RunRow(run.name, run.directory, run.settings, state, value, why)


def problem(run: Arm, state: State) -> str:
    """Says why a run has not finished."""
    if state == "running":
        return "is running"
    if state == "missing" and run.pruned.is_file():
        return f"pruned at step {run.pruned.read_text().strip()}"
    if state == "missing":
        return "has not been run to its end"
    lines = run.last_lines(_LOG_LINES)
    last = next((line for line in reversed(lines) if line.startswith("convjax: ")), lines[-1] if lines else "")
    # The loop's last line of metrics is the one that stopped it.
    logged = [line for line in Run(run.directory).metrics() if "train.loss" in line]
    if logged and None in logged[-1].values():
        return f"diverged at step {logged[-1]['step']}"
    if "the training has diverged" in last:
        return "diverged"
    reason = shortened(last.removeprefix("convjax: ").removeprefix("failed: "))
    return f"failed: {reason}" if reason else f"failed with exit code {run.exit_code()}"


def shortened(reason: str) -> str:
    """Returns the beginning of a reason that is long."""
    return f"{reason[:_LONGEST_REASON]} ..." if len(reason) > _LONGEST_REASON else reason
