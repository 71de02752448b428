"""Feeding the step from a split that is resident on the device as uint8."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.data.sources import Split


class Batch(NamedTuple):
    """Attributes:
    images: uint8 `[N, H, W, C]`.
    labels: int32 `[N]`.
    ids: int32 `[N]`, which example of the split each is.
    """

    images: jax.Array
    labels: jax.Array
    ids: jax.Array


class Resident:
    """A split that lives on the device; a batch of it is taken there, from ids alone."""

    def __init__(self, split: Split) -> None:
        self.images = jax.device_put(split.images)
        self.labels = jax.device_put(split.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, batch_size: int) -> Iterator[NDArray[np.int32]]:
        """Yields the ids of each example once, in order; the last batch is filled up with the last id."""
        for first in range(0, len(self), batch_size):
            yield np.minimum(np.arange(first, first + batch_size), len(self) - 1).astype(np.int32)


def take(images: jax.Array, labels: jax.Array, ids: jax.Array) -> Batch:
    """Returns the batch of the examples `ids`; to be called inside of a jitted function."""
    return Batch(jnp.take(images, ids, axis=0), jnp.take(labels, ids, axis=0), ids)
