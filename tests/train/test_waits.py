import time
from collections.abc import Iterator

import jax.numpy as jnp
import pytest

from convjax.train.waits import Waits


class Step:
    """What a step returns that takes some time: JAX calls the method to wait for it."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def block_until_ready(self) -> "Step":
        time.sleep(max(0.0, self.end - time.monotonic()))
        return self


def late(count: int, seconds: float) -> Iterator[int]:
    """Batches of which each takes some time."""
    for number in range(count):
        time.sleep(seconds)
        yield number


def run(waits: Waits, count: int, data: float, step: float) -> float:
    """Takes steps and returns how long that took after the first one."""
    with waits:
        for number in waits.over(late(count, data)):
            if not number:
                began = time.monotonic()
            waits.dispatched(Step(step))
    return time.monotonic() - began


def test_what_a_device_without_work_waits_for_is_counted() -> None:
    waits = Waits(measures=True)
    took = run(waits, 6, data=0.2, step=0.05)
    # Five batches after the first one; of each the step hides its own time.
    assert 5 * 0.1 < waits.seconds < took - 5 * 0.04
    assert waits.share == pytest.approx(waits.seconds / took, rel=0.1)


def test_what_a_step_hides_is_not_counted() -> None:
    waits = Waits(measures=True)
    run(waits, 4, data=0.02, step=0.8)
    assert waits.seconds == 0


def test_who_waits_is_told_once_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convjax.train.waits._SECONDS", 0.1)
    waits = Waits(measures=True)
    run(waits, 25, data=0.01, step=0.0)
    advice = waits.advice()
    assert advice is not None
    assert advice.startswith("input-bound: the steps have waited for data ")
    assert "data.image_size" in advice
    assert waits.advice() is None
    assert (waits.summary() or "").startswith("the steps waited 0.")


def test_nothing_is_said_of_steps_that_never_wait() -> None:
    waits = Waits(measures=False)
    run(waits, 25, data=0.001, step=0.0)
    assert (waits.seconds, waits.advice(), waits.summary()) == (0, None, None)


def test_arrays_of_jax_are_waited_for() -> None:
    with (waits := Waits(measures=True)):
        for _ in waits.over(late(3, 0.05)):
            waits.dispatched({"loss": jnp.zeros(())})
    assert waits.seconds > 0.08
