"""Which example comes when: pure functions, so that the state of the input pipeline is one integer."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from convjax.errors import UsageError


@functools.lru_cache(maxsize=64)
def orders(seed: int, examples: int) -> Callable[[int], NDArray[np.int64]]:
    """Returns the order of an epoch as a function of its number; see `epoch_order`.

    Of each seed two are kept: a batch may reach from one epoch into the next, and seeds may be trained at once.
    """

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> NDArray[np.int64]:
        permutation = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)
        permutation.flags.writeable = False
        return permutation

    return order


def epoch_order(seed: int, epoch: int, examples: int) -> NDArray[np.int64]:
    """Returns the order of one epoch: a permutation of `range(examples)`, read-only.

    Drawn from Philox (Salmon et al. 2011), a counter-based generator: any epoch is reached at once.
    """
    return orders(seed, examples)(epoch)


def batch_ids(seed: int, step: int, batch_size: int, examples: int, repeats: int = 1) -> NDArray[np.int64]:
    """Returns the draws of the batch at `step`: `id + k * examples` draws the example `id` for the k-th time in it.

    Epochs follow each other without a gap, and a batch may reach from one into the next: every example is
    seen exactly once an epoch, whatever the batch size. With repeats a batch holds so many times fewer examples, each
    so many times, and it takes as many more steps to see every example.

    Args:
        seed: the run's seed.
        step: step counted from 0.
        batch_size: examples a batch.
        examples: examples in the train split.
        repeats: how often each example is in the batch; divides it.
    """
    different = batch_size // repeats
    positions = np.arange(step * different, (step + 1) * different)
    epochs = positions // examples
    ids = np.empty(different, np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
        inside = epochs == epoch
        ids[inside] = epoch_order(seed, epoch, examples)[positions[inside] % examples]
    return (ids + examples * np.arange(repeats)[:, None]).ravel()


def batch_epochs(step: int, batch_size: int, examples: int, repeats: int = 1) -> NDArray[np.int64]:
    """Returns the epoch that each example of the batch at `step` belongs to; see `batch_ids`."""
    different = batch_size // repeats
    return np.tile(np.arange(step * different, (step + 1) * different) // examples, repeats)


@dataclasses.dataclass(frozen=True)
class Draws:
    """The draws of a run's training, batch by batch; see `batch_ids`, as for the attributes."""

    seed: int
    batch_size: int
    examples: int
    repeats: int = 1

    def ids(self, step: int) -> NDArray[np.int64]:
        """Returns the draws of the batch at a step."""
        return batch_ids(self.seed, step, self.batch_size, self.examples, self.repeats)

    def epochs(self, step: int) -> NDArray[np.int64]:
        """Returns the epoch of each of them."""
        return batch_epochs(step, self.batch_size, self.examples, self.repeats)


def part(name: str, examples: int, count: int) -> NDArray[np.int64]:
    """Returns which `count` of `range(examples)` stand for all of a data set, in rising order.

    The rule is fixed, the same for every run and seed, and a smaller part lies within a larger one.

    Raises:
        UsageError: the data set, called `name`, has no so many.
    """
    if count > examples:
        raise UsageError(f"data.examples is {count}: the train split of {name!r} has {examples}")
    return np.sort(epoch_order(0x5EED, 1, examples)[:count])


def cut(examples: int, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides `range(examples)` into those that stay and those that are cut off, both in rising order.

    The rule is fixed, the same for every run and seed: the cut is the first `round(share * examples)` of one
    permutation.
    """
    permutation = epoch_order(0x5EED, 0, examples)
    count = round(share * examples)
    return np.sort(permutation[count:]), np.sort(permutation[:count])
