"""How long steps wait for data, and what to do about it."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

import jax

from convjax.data.records import threads

T = TypeVar("T")

INPUT_BOUND = 0.1
"""Share of the time that steps wait for data, from which on these decide on the run's speed."""
_STEPS, _SECONDS = 20, 5.0
"""Steps and time after which that can be said."""


class Waits:
    """Measures the time in which a device has done all its steps and the next batch is not there yet.

    What is waited for while a step is still computed costs nothing, and does not count; so a thread notes when each
    step is done.

    Attributes:
        seconds: waited so far.
    """

    def __init__(self, *, measures: bool) -> None:
        """Begins to measure, if it is to: whoever has all data on the device never waits."""
        self.seconds = 0.0
        self._pool = ThreadPoolExecutor(1) if measures else None
        self._done: Future[float] | None = None
        self._first: float | None = None
        self._steps, self._told = 0, False

    def __enter__(self) -> "Waits":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """Goes through batches, and measures."""
        every = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(every)
            except StopIteration:
                return
            if self._done is not None and self._done.done() and self._done.exception() is None:
                self.seconds += max(0.0, time.monotonic() - max(asked, self._done.result()))
            yield batch

    def dispatched(self, result: Any) -> None:
        """Takes note of a step, by the arrays that it will return."""
        self._steps += 1
        if self._pool is not None:
            self._first = self._first or time.monotonic()
            self._done = self._pool.submit(_ready, result)

    @property
    def share(self) -> float:
        """Share of the time since the first step that was waited."""
        return self.seconds / max(time.monotonic() - self._first, 1e-9) if self._first else 0.0

    def summary(self) -> str | None:
        """Returns how long was waited, in words; None where nothing was measured."""
        if self._first is None:
            return None
        return f"the steps waited {self.seconds:.1f} s for data, {100 * self.share:.0f} % of the time"

    def advice(self) -> str | None:
        """Returns what to tell a user who waits for data, once, when it is sure; else None."""
        sure = self._first is not None and self._steps >= _STEPS and time.monotonic() - self._first >= _SECONDS
        if self._told or not sure or self.share < INPUT_BOUND:
            return None
        self._told = True
        return (
            f"input-bound: the steps have waited for data {100 * self.share:.0f} % of the time, {threads()} threads "
            "read and decode: take a machine with more cores for each device, store the images smaller (twice "
            "data.image_size is enough), or set data.feed to resident if they fit into the device's memory"
        )


def _ready(result: Any) -> float:
    """Returns when the arrays were computed."""
    with contextlib.suppress(RuntimeError):  # what fails is told where the step is settled
        jax.block_until_ready(result)
    return time.monotonic()
