"""Runs that differ in the seed alone, trained in one process as one program."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from convjax.errors import RunError, UsageError, about
from convjax.ops import cpu
from convjax.train import failures, loop
from convjax.train.config import Config
from convjax.train.interrupts import Interrupted, Interrupts
from convjax.train.prepare import Prepared, equip, prepare
from convjax.train.result import Result
from convjax.train.run import Run
from convjax.train.stack import Stack

End: TypeAlias = Result | RunError | UsageError | Interrupted
"""What a run ends with."""


def check(config: Config) -> None:
    """Makes sure that seeds of a configuration can be trained as one program.

    Raises:
        UsageError: they cannot; the message names the field.
    """
    parallel = config.parallel
    refused = {
        "data.feed": (config.data.feed, "resident", config.data.feed == "resident"),
        "parallel.mode": (parallel.mode, "jit", parallel.mode == "jit"),
        "parallel.devices": (parallel.devices, "1", parallel.devices in (None, 1)),
        "parallel.coordinator": (parallel.coordinator, "None, for one process", parallel.coordinator is None),
        # A branch that is chosen by a batch of counts is computed in every way there is.
        "train.sizes_at": (config.train.sizes_at, "empty", not config.train.sizes_at),
        "wandb.mode": (
            config.wandb.mode,
            "off, since a process has one run of Weights & Biases",
            config.wandb.mode == "off",
        ),
    }
    for field, (value, right, fits) in refused.items():
        if not fits:
            raise UsageError(f"{field} is {value!r}: it must be {right} where several seeds are trained at once")


def train(
    config: Config, runs: Mapping[int, Run], experiment: Path | None = None, interrupts: Interrupts | None = None
) -> dict[int, End]:
    """Trains, or goes on with, the runs of several seeds; all else is as `loop.train` has it, for each of them.

    Each run's loop is its own, with its log, its checkpoints and its evaluations; they take turns, and a step of all
    of them is computed at once. They need not be at the same step. One that fails leaves the others as they are.

    Args:
        config: the experiment, but for the seed.
        runs: where each seed's run lives.
        experiment: the file that defines `config`.
        interrupts: see `loop.train`.

    Returns:
        What each seed's run ends with: its result, or the error that `loop.train` would raise.

    Raises:
        UsageError: the configuration, the data or a directory is wrong; nothing has been written.
        RunError: the data or the weights to start from are damaged.
    """
    check(config)
    interrupts = interrupts or Interrupts()
    configs = {seed: dataclasses.replace(config, seed=seed) for seed in runs}
    ends: dict[int, End] = {}
    with failures.explained(), cpu.switched_on():
        prepared = _prepared(configs, runs, experiment)
        first = next(iter(prepared.values()))
        if first.placement.devices > 1:
            raise UsageError(
                f"there are {first.placement.devices} devices, and several seeds are trained at once on one: "
                "set parallel.devices to 1"
            )
        equipment = equip(config, first)
        stack = Stack(first.placement, first.step, equipment.feeds["train"], list(runs))
        lanes = {seed: stack.lane(seed) for seed in runs}
        trainings = {
            seed: loop.training(
                configs[seed], run, experiment, interrupts, (prepared[seed], equipment._replace(advance=lanes[seed]))
            )
            for seed, run in runs.items()
        }
        try:
            while len(ends) < len(runs):
                for seed in [seed for seed in runs if seed not in ends]:
                    try:
                        lanes[seed].offer(next(trainings[seed]))
                    except StopIteration as end:
                        ends[seed] = end.value
                    except (RunError, UsageError, Interrupted) as error:
                        ends[seed] = error
        finally:
            for training in trainings.values():
                training.close()
    return ends


def _prepared(configs: Mapping[int, Config], runs: Mapping[int, Run], experiment: Path | None) -> dict[int, Prepared]:
    """Prepares all runs, before anything is written."""
    prepared: dict[int, Prepared] = {}
    for seed, config in configs.items():
        with about(f"seed {seed}"):
            like = next(iter(prepared.values()), None)
            prepared[seed] = prepare(config, runs[seed], experiment, like)._replace(seeds=tuple(runs))
    return prepared
