"""Steps of a run, timed one by one: how long each waits for its data, and how long it takes."""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from convjax.data import order
from convjax.data.loader import Feed
from convjax.ops import cpu
from convjax.train.config import Config
from convjax.train.parallel import Advance
from convjax.train.state import TrainState


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


def timed(config: Config, feed: Feed, advance: Advance, state: TrainState, steps: int) -> Iterator[Timed]:
    """Takes some steps of a run, and waits for each; the first of them compiles.

    After the first the batches that were loaded meanwhile are thrown away, so that the third and later ones wait for
    their data as steps in the midst of a long run do.

    Args:
        config: the run's configuration.
        feed: its train split.
        advance: its step.
        state: the state to begin with, as `advance` takes it.
        steps: how many.
    """
    size, repeats = config.train.batch_size, config.data.augment.repeats

    def ids(number: int) -> Any:
        return order.batch_ids(config.seed, number, size, len(feed), repeats)

    def epochs(number: int) -> Any:
        return order.batch_epochs(number, size, len(feed), repeats)

    batches = feed.batches(ids, 0, steps + _AHEAD, epochs)
    for number in range(steps):
        if number == 1:
            _empty(batches)
        before = time.perf_counter()
        given = next(batches)
        there = time.perf_counter()
        with cpu.switched_on():
            state, metrics = advance(state, given)
        jax.block_until_ready((state, metrics))
        yield Timed(there - before, time.perf_counter() - there, state)


def _empty(batches: Iterator[Any]) -> None:
    for _ in range(_AHEAD):
        before = time.perf_counter()
        next(batches)
        if time.perf_counter() - before > _SOON:
            return
