"""Weights for images of another number of channels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from convjax.data.splits import Normalise


def mix(old: int, new: int) -> NDArray[np.float64]:
    """Returns how each of `old` input channels is shared among `new` ones: `A` of shape `[old, new]`, rows of sum 1.

        A[c, j] = [c = j mod m] / |{i < new : i = c mod m}|,  m = min(old, new)

    Fewer channels have the sums of the kernels that fall on them, one channel that of all; more have the kernels one
    after the other again, divided by how often each appears. An image that is the same in all channels gives the same
    output as before.
    """
    least = min(old, new)
    same = (np.arange(old)[:, None] % least) == (np.arange(new)[None, :] % least)
    return same / same.sum(axis=1, keepdims=True)


def rechannelled(kernel: NDArray[Any], channels: int) -> NDArray[np.float32]:
    """Returns a kernel `[H, W, C, F]` for other input channels: `K'[:, :, j] = sum_c A[c, j] K[:, :, c]`."""
    mixed = np.einsum("hwcf,cj->hwjf", np.asarray(kernel, np.float64), mix(kernel.shape[2], channels))
    return mixed.astype(np.float32)


def normalisation(found: Normalise, channels: int) -> Normalise:
    """Returns the normalisation that weights expect, for another number of channels.

    A channel has the mean of the means, and that of the deviations, of those that `mix` joins in it.
    """
    shares = mix(len(found.mean), channels) > 0
    shares = shares / shares.sum(axis=0)
    return Normalise(*(tuple((np.asarray(values) @ shares).tolist()) for values in (found.mean, found.std)))
