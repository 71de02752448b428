"""Steps of a run, timed one by one: how long each waits for its data, and how long it takes."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from convjax.data import loader
from convjax.data.loader import Feed
from convjax.data.splits import Splits
from convjax.ops import cpu
from convjax.train.config import Config
from convjax.train.evaluate import begin, build
from convjax.train.parallel import Advance, Placement
from convjax.train.plan import draws
from convjax.train.state import TrainState
from convjax.train.step import Step


class Started(NamedTuple):
    """What a run has before its first step.

    Attributes:
        config: its configuration.
        placement: where its arrays are.
        step: its step.
        shapes: of its state.
        feed: its train split.
        advance: takes a step, and with it the state that it is given.
        state: the state to begin with, as `advance` takes it.
    """

    config: Config
    placement: Placement
    step: Step
    shapes: TrainState
    feed: Feed
    advance: Advance
    state: TrainState


def start(config: Config, data: Splits) -> Started:
    """Builds all that a configuration's steps need, without a run's directory.

    Raises:
        UsageError: the configuration does not fit the data, or this machine.
    """
    placement = Placement.of(config)
    step, shapes = build(config, data.info, placement)
    feed = loader.feed(config.data.feed, data.splits["train"], placement)
    advance = Advance(placement, step, feed, shapes)
    state = advance.enter(begin(config, step, data.info, placement))
    return Started(config, placement, step, shapes, feed, advance, state)


class Timed(NamedTuple):
    """Attributes:
    waited: seconds until the batch was there.
    stepped: seconds of the step itself.
    state: the state after it, as `Advance` has it.
    """

    waited: float
    stepped: float
    state: TrainState


_AHEAD, _SOON = 64, 0.002
"""Batches that are thrown away at most to empty a loader's buffer, and seconds above which one was waited for."""


def timed(started: Started, steps: int) -> Iterator[Timed]:
    """Takes some steps of a run, and waits for each; the first of them compiles.

    After the first the batches that were loaded meanwhile are thrown away, so that the third and later ones wait for
    their data as steps in the midst of a long run do.

    Args:
        started: the run, whose state is used up.
        steps: how many.
    """
    drawn, state = draws(started.config, len(started.feed)), started.state
    batches = started.feed.batches(drawn.ids, 0, steps + _AHEAD, drawn.epochs)
    for number in range(steps):
        if number == 1:
            _empty(batches)
        before = time.perf_counter()
        given = next(batches)
        there = time.perf_counter()
        with cpu.switched_on():
            state, metrics = started.advance(state, given)
        jax.block_until_ready((state, metrics))
        yield Timed(there - before, time.perf_counter() - there, state)


def _empty(batches: Iterator[Any]) -> None:
    for _ in range(_AHEAD):
        before = time.perf_counter()
        next(batches)
        if time.perf_counter() - before > _SOON:
            return
