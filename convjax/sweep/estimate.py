"""How long a sweep will take, from a timed step of each distinct shape of configuration."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from convjax import allocator
from convjax.errors import RunError
from convjax.sweep.check import Checked
from convjax.sweep.job import bound
from convjax.sweep.resources import Share
from convjax.train.config_json import to_json


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds that a run takes: to start, for a step, to evaluate one example."""

    start: float
    step: float
    example: float

    def seconds(self, checked: Checked) -> float:
        """Returns how long a whole run takes."""
        plan, examples = checked.plan, checked.info.examples
        evaluations = sum(plan.evaluates_after(step) for step in range(1, plan.steps + 1)) + 1
        evaluated = evaluations * examples["validation"] + examples["test"]
        return self.start + plan.steps * self.step + evaluated * self.example


def pace(checked: Checked, experiment: Path, share: Share) -> Pace:
    """Times a few steps of a configuration in a process like that of its run.

    Args:
        checked: the configuration.
        experiment: the experiment file.
        share: of the machine that the run will have.

    Raises:
        RunError: it fails.
    """
    environment: Mapping[str, str] = {**os.environ, **share.environment}
    environment = {**environment, **allocator.settings(environment)}
    command = [sys.executable, "-m", "convjax.sweep.timing", str(experiment)]
    before = time.monotonic()
    with bound(share.cores):
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    output, errors = process.communicate(json.dumps(to_json(checked.trial.config)))
    if process.returncode:
        raise RunError(f"{checked.trial}: a step fails:\n{errors.strip()}")
    found = json.loads(output)
    return Pace(time.monotonic() - before - found["measuring"] - found["once"], found["step"], found["example"])


def makespan(seconds: list[float], jobs: int) -> float:
    """Returns how long jobs take that are started in order, so many at once."""
    ends = [0.0] * jobs
    for length in seconds:
        ends[ends.index(min(ends))] += length
    return max(ends)
