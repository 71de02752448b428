"""The steps of several runs that differ in the seed alone, as one compiled program: vmap over their stacked states."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data.loader import Feed
from convjax.train.parallel import Metrics, Placement
from convjax.train.state import TrainState
from convjax.train.step import Step


class Stack:
    """The program, and where its runs are.

    A run that has ended, or never began, keeps its place, in which the last that it was given is computed again: so
    the program stays the same, and with it the bits of the others.
    """

    def __init__(self, placement: Placement, step: Step, feed: Feed, seeds: Sequence[int]) -> None:
        """Prepares to compile.

        Args:
            placement: one device.
            step: that of any of the runs.
            feed: where batches come from; the same for all.
            seeds: those of the runs, each in its place.
        """
        self._seeds, self._held = tuple(seeds), feed.held
        self._entered: dict[int, TrainState] = {}
        self._given: dict[int, Any] = {}
        self._states: TrainState | None = None
        self._metrics: _Metrics | None = None
        self._done = 0
        self._failed: Exception | None = None

        def advance(
            states: TrainState, seeds: jax.Array, held: Any, given: tuple[Any, ...]
        ) -> tuple[TrainState, Metrics]:
            def one(state: TrainState, seed: jax.Array, given: Any) -> tuple[TrainState, Metrics]:
                return dataclasses.replace(step, seed=seed).train(state, feed.read(held, given))

            return jax.vmap(one)(states, seeds, _stacked(*given))

        place = placement.replicated
        self._call = jax.jit(advance, donate_argnums=0, out_shardings=place)
        self._stack = jax.jit(_stacked, out_shardings=place)
        self._part = jax.jit(lambda states, index: jax.tree.map(lambda leaf: leaf[index], states), out_shardings=place)

    def lane(self, seed: int) -> "Lane":
        """Returns the steps of one run."""
        return Lane(self, self._seeds.index(seed))

    def enter(self, index: int, state: TrainState) -> None:
        """Takes the state that a run begins with."""
        self._entered[index] = state

    def offer(self, index: int, given: Any) -> None:
        """Takes what a run's next step is given; see `Feed.batches`."""
        self._given[index] = given

    def round(self, number: int) -> tuple[TrainState, "_Metrics"]:
        """Returns states and metrics after so many rounds, the last of which is computed when it is first asked for."""
        if self._failed is not None:
            raise self._failed
        if number > self._done:
            try:
                self._advance()
            except Exception as error:  # it has the states of all runs
                self._failed = error
                raise
        assert self._states is not None
        assert self._metrics is not None
        return self._states, self._metrics

    def part(self, states: TrainState, index: int) -> TrainState:
        """Returns one run's state."""
        return cast(TrainState, self._part(states, np.int32(index)))

    def _advance(self) -> None:
        if self._states is None:
            self._states = self._stack(*self._filled(self._entered))
            self._entered = {}
        seeds = np.array(self._seeds, np.uint32)
        self._states, metrics = self._call(self._states, seeds, self._held, self._filled(self._given))
        self._metrics = _Metrics(metrics)
        self._done += 1

    def _filled(self, each: dict[int, Any]) -> tuple[Any, ...]:
        """Returns what stands in each place; in those that are empty, what stands in another."""
        other = next(iter(each.values()))
        return tuple(each.get(index, other) for index in range(len(self._seeds)))


class Lane:
    """One run's steps, as its loop takes them; see `convjax.train.parallel.Advance`.

    All that are still to take a step must have offered what it is given before the first of them takes it.
    """

    def __init__(self, stack: Stack, index: int) -> None:
        self._stack, self._index, self._taken = stack, index, 0

    def offer(self, given: Any) -> None:
        """Takes what the next step is given."""
        self._stack.offer(self._index, given)

    def __call__(self, state: TrainState, given: Any) -> tuple[TrainState, Any]:
        """Takes a step; returns what `leave` and `read` take."""
        del state  # the stack has it
        self.offer(given)
        self._taken += 1
        return self._stack.round(self._taken)

    def enter(self, state: TrainState) -> TrainState:
        """Hands in the state to begin with."""
        self._stack.enter(self._index, state)
        return state

    def leave(self, state: TrainState) -> TrainState:
        """Returns the run's own state."""
        return self._stack.part(state, self._index) if self._taken else state

    def read(self, metrics: Any) -> dict[str, float]:
        """Returns a step's metrics, once they are computed."""
        return {name: float(values[self._index]) for name, values in metrics.fetched.items()}


@dataclasses.dataclass(frozen=True)
class _Metrics:
    """The metrics of a round, fetched once for all runs."""

    arrays: Metrics

    @functools.cached_property
    def fetched(self) -> dict[str, NDArray[Any]]:
        return cast(dict[str, NDArray[Any]], jax.device_get(self.arrays))


def _stacked(*trees: Any) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
