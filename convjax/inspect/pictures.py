"""Arrays as pictures: filters, feature maps and attributions as uint8 images."""

from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def around_zero(values: NDArray[np.float32]) -> Pixels:
    """Returns filters `[..., h, w, C]` as uint8, C 1 or 3: mid-grey for 0, each scaled by its own largest value."""
    largest = np.abs(values).max(axis=(-3, -2, -1), keepdims=True)
    return np.rint(127.5 * (1 + values / np.where(largest == 0, 1, largest))).astype(np.uint8)


def heat(values: NDArray[np.float32]) -> Pixels:
    """Returns a map `[h, w]` of values of one sign as colours `[h, w, 3]`: black for 0, bright for the largest."""
    return _coloured("inferno", np.abs(values) / _largest(values))


def signed(values: NDArray[np.float32]) -> Pixels:
    """Returns a map `[h, w]` as colours `[h, w, 3]`: red for, blue against, white for 0."""
    return _coloured("RdBu_r", 0.5 + 0.5 * values / _largest(values))


def overlay(pixels: Pixels, values: NDArray[np.float32]) -> Pixels:
    """Returns an image `[H, W, C]` in grey under the colours of a map `[h, w]` that is at least 0."""
    height, width = pixels.shape[:2]
    share = np.asarray(values, np.float32) / _largest(values)
    large = np.asarray(Image.fromarray(share).resize((width, height), Image.Resampling.BILINEAR))
    grey = pixels.astype(np.float32).mean(axis=-1, keepdims=True)
    return np.rint(0.5 * grey + 0.5 * _coloured("jet", np.clip(large, 0, 1))).astype(np.uint8)


def feature_maps(values: NDArray[np.float32]) -> list[Pixels]:
    """Returns each channel of `[h, w, c]` as grey `[h, w, 1]`: from its own smallest to its own largest value.

    A channel that is the same everywhere is black.
    """
    low, high = (extreme(values, axis=(0, 1), keepdims=True) for extreme in (np.min, np.max))
    grey = np.rint(255 * (values - low) / np.where(high == low, 1, high - low)).astype(np.uint8)
    return [grey[..., i : i + 1] for i in range(grey.shape[-1])]


def _largest(values: NDArray[np.float32]) -> float:
    return float(np.abs(values).max()) or 1.0


def _coloured(name: str, share: NDArray[np.floating[Any]]) -> Pixels:
    return np.asarray(matplotlib.colormaps[name](share, bytes=True))[..., :3]
