"""Which example comes when: pure functions, so that the state of the input pipeline is one integer."""

import functools

import numpy as np
from numpy.typing import NDArray


@functools.lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """Returns the order of one epoch: a permutation of `range(examples)`, read-only.

    Drawn from Philox (Salmon et al. 2011), a counter-based generator: any epoch is reached at once.
    """
    permutation = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)
    permutation.flags.writeable = False
    return permutation


def batch_ids(seed: int, step: int, batch_size: int, examples: int) -> NDArray[np.int64]:
    """Returns the examples of the batch at `step`.

    Epochs follow each other without a gap, and a batch may reach from one into the next: every example is
    seen exactly once an epoch, whatever the batch size.

    Args:
        seed: the run's seed.
        step: step counted from 0.
        batch_size: examples a batch.
        examples: examples in the train split.
    """
    epochs = batch_epochs(step, batch_size, examples)
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    ids = np.empty(batch_size, np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
        inside = epochs == epoch
        ids[inside] = epoch_order(seed, epoch, examples)[positions[inside] % examples]
    return ids


def batch_epochs(step: int, batch_size: int, examples: int) -> NDArray[np.int64]:
    """Returns the epoch that each example of the batch at `step` belongs to; see `batch_ids`."""
    return np.arange(step * batch_size, (step + 1) * batch_size) // examples


def cut(examples: int, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides `range(examples)` into those that stay and those that are cut off, both in rising order.

    The rule is fixed, the same for every run and seed: the cut is the first `round(share * examples)` of one
    permutation.
    """
    permutation = epoch_order(0x5EED, 0, examples)
    count = round(share * examples)
    return np.sort(permutation[count:]), np.sort(permutation[:count])
