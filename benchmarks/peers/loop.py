"""The steps of a training loop, without what else a run does between them."""

from collections.abc import Callable, Iterable
from typing import Any

import jax


def steps(
    advance: Callable[[Any, Any], tuple[Any, Any]], read: Callable[[Any], Any], state: Any, batches: Iterable[Any]
) -> Any:
    """Takes a step for each batch, and returns the state when it is computed.

    Metrics are read one step late, as the training loop does it: while the device has the next step to do.
    """
    before = None
    for given in batches:
        state, metrics = advance(state, given)
        if before is not None:
            read(before)
        before = metrics
    return jax.block_until_ready(state)
