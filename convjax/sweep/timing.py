"""How long a run will take, from a few of its steps: `python -m convjax.sweep.timing EXPERIMENT < config.json`.

A process of its own, so that it computes where and with what the run will, and its compilation counts.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from convjax import compiled
from convjax.data import loader
from convjax.data.sources import Split
from convjax.errors import RunError, UsageError
from convjax.ops import cpu
from convjax.profile.steps import start, timed
from convjax.train import experiment, failures
from convjax.train.config_json import from_json
from convjax.train.evaluate import Evaluator, load_data

_STEPS, _SECONDS = 20, 5.0
"""Steps that are timed at most, and seconds after which no other is."""


def measure(config_json: dict[str, Any]) -> dict[str, float]:
    """Returns seconds of a step, of the evaluation of one example, both compiled before, and of what is done once.

    What is compiled is kept, and the sweep's runs find it: the last of these are not theirs.
    """
    config = from_json(config_json)
    data, batch_size = load_data(config), config.train.batch_size
    run = start(config, data)
    times: list[float] = []
    began = time.monotonic()
    for taken in timed(run, _STEPS + 1):
        times.append(taken.stepped)
        if len(times) == 1:
            began = time.monotonic()
        elif time.monotonic() - began > _SECONDS:
            break
    timing = time.monotonic() - began
    plain = run.advance.leave(taken.state)
    test = data.splits["test"]
    few = Split(test.images[: 4 * batch_size], test.labels[: 4 * batch_size])
    evaluator = Evaluator(run.step, data.info.class_names, batch_size, run.placement)
    held = loader.feed(config.data.feed, few, run.placement)
    evaluated: list[float] = []
    for _ in range(2):
        before = time.monotonic()
        evaluator("test", plain, held)
        evaluated.append(time.monotonic() - before)
    step, first, again = statistics.median(times[1:]), *evaluated
    once = 0.0 if compiled.refused() else times[0] - step + first - again
    return {"step": step, "example": again / len(few), "once": once, "measuring": timing + again}


if __name__ == "__main__":
    try:
        experiment.load(Path(sys.argv[1]))  # the model's class may be defined there
        compiled.keep()
        with failures.explained(), cpu.switched_on():
            print(json.dumps(measure(json.load(sys.stdin))))
    except (UsageError, RunError) as error:
        sys.exit(f"{error}")
