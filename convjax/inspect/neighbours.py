"""How much neighbouring pixels of a data set have in common: what convolutions live off."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from convjax.errors import UsageError


def correlation(images: NDArray[np.uint8], distances: Sequence[int]) -> list[float]:
    """Returns how strongly two pixels of an image are correlated, by their distance.

    Pearson's coefficient over the images, of each channel at each pair of places that lie so many pixels apart in a
    row or in a column, averaged over pairs. What all images share, as a black border, has no part in it: places whose
    pixel is the same in all images are left out.

    Args:
        images: `[N, H, W, C]`, at least two.
        distances: in pixels, below both sides of the images.

    Raises:
        UsageError: a distance is negative, or reaches over the images; or no pixel varies.
    """
    height, width = images.shape[1:3]
    values = images.astype(np.float32)
    values -= values.mean(axis=0)
    deviation = values.std(axis=0)
    varies = deviation > 0
    if not varies.any():
        raise UsageError("no pixel varies over the images: they have no correlation")
    values /= np.where(varies, deviation, 1)
    return [_at(values, varies, distance, min(height, width)) for distance in distances]


def _at(values: NDArray[np.float32], varies: NDArray[np.bool_], distance: int, side: int) -> float:
    """Returns the mean correlation at a distance, of values `[N, H, W, C]` with mean 0 and deviation 1."""
    if not 0 <= distance < side:
        raise UsageError(f"the distance is {distance} pixels: it must be from 0 to {side - 1}")
    total, pairs = 0.0, 0
    for axis in (1, 2):
        size = values.shape[axis]
        here, there = (np.arange(size - distance), np.arange(distance, size))
        both = np.take(varies, here, axis - 1) & np.take(varies, there, axis - 1)
        products = np.einsum("nhwc,nhwc->hwc", np.take(values, here, axis), np.take(values, there, axis)) / len(values)
        total += float(products[both].sum())
        pairs += int(both.sum())
    if not pairs:
        raise UsageError(f"no two pixels that vary lie {distance} pixels apart")
    return total / pairs
