"""Weights and images that are functions of their names, the same everywhere: what certificates are computed from.

They are drawn from the bits of Philox (Salmon et al. 2011), whose stream NumPy keeps, by exact integers and single
roundings.

In evaluation the running statistics must fit the signals, or these vanish or explode: `levels` are what the library
found each norm's input to be, squared, on average. In training gradients jump where a value crosses a rectifier's zero
or another's place as the largest of a pooling, be it by rounding alone. Norms therefore scale little and shift by about
one, so that few values are near zero, and images are taken that bring none near to such a place (see kinks.py).
"""

import hashlib
import math
from collections.abc import Mapping

import numpy as np

from convjax.interop.layout import Array, Shape
from convjax.interop.torch_names import names_and_shapes
from convjax.models import MODELS

BATCH = 2
"""Images of a batch."""
TRAINED_SIZE = 64
"""Side of images in training, in pixels, at most."""


def bits(key: str, count: int) -> Array:
    """Returns `count` random uint32 that belong to a key."""
    number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=16).digest(), "little")
    raw = np.random.Philox(key=number).random_raw((count + 1) // 2)
    return np.stack([raw & 0xFFFFFFFF, raw >> np.uint64(32)], axis=-1).astype(np.uint32).ravel()[:count]


def uniform(key: str, shape: Shape, low: float, high: float) -> Array:
    """Returns float32 numbers from `low` to `high` that belong to a key."""
    fractions = (bits(key, math.prod(shape)) >> 8).astype(np.float32) * np.float32(2**-24)
    return np.float32(low) + np.float32(high - low) * fractions.reshape(shape)


def weights(name: str, levels: Mapping[str, float] | None = None) -> dict[str, Array]:
    """Returns a state dict for the library's network of a name: for evaluation with `levels`, for training without."""
    shapes = names_and_shapes(name)
    return {key: _weight(key, shapes, levels, fixed_scales=name == "airbench94") for key in shapes}


def _weight(key: str, shapes: Mapping[str, Shape], levels: Mapping[str, float] | None, *, fixed_scales: bool) -> Array:
    shape = shapes[key]
    module, _, leaf = key.rpartition(".")
    normalises = len(shapes.get(f"{module}.weight", (0, 0))) == 1
    if leaf == "running_mean":
        return np.sqrt(np.float32((levels or {}).get(module, 1))) * uniform(key, shape, -0.3, 0.3)
    if leaf == "running_var":
        return np.float32((levels or {}).get(module, 1)) * uniform(key, shape, 0.8, 1.25)
    if leaf == "bias":
        return uniform(key, shape, -0.25, 0.25) + np.float32(normalises and levels is None)
    if leaf == "weight" and normalises:
        low, high = (0.5, 1.5) if levels is not None else (0.2, 0.4)
        return np.ones(shape, np.float32) if fixed_scales else uniform(key, shape, low, high)
    if leaf == "layer_scale":
        return uniform(key, shape, 0.5, 1.5)
    bound = math.sqrt(6 / math.prod(shape[1:]))  # variance 2 / fan-in
    return uniform(key, shape, -bound, bound)


def evaluated_images(name: str) -> Array:
    """Returns images `[BATCH, C, H, W]` of a named network's usual size."""
    return _images("evaluated", MODELS[name].image)


def trained_images(name: str, seed: int) -> Array:
    """Returns images `[BATCH, C, H, W]` of at most 64 pixels a side."""
    height, width, channels = MODELS[name].image
    return _images(f"trained {seed}", (min(height, TRAINED_SIZE), min(width, TRAINED_SIZE), channels))


def _images(key: str, image: Shape) -> Array:
    """Returns noise on squares, and on single pixels."""
    height, width, channels = image
    squares = uniform(f"squares {key}", (BATCH, channels, 7, 7), -1.5, 1.5)
    squares = squares.repeat(-(-height // 7), axis=2).repeat(-(-width // 7), axis=3)[:, :, :height, :width]
    return squares + uniform(f"pixels {key}", (BATCH, channels, height, width), -0.75, 0.75)


def digest(state_dict: Mapping[str, Array], batch: Array) -> str:
    """Returns the digest of weights and images."""
    found = hashlib.blake2b(digest_size=16)
    for key in sorted(state_dict):
        found.update(f"{key} {state_dict[key].shape}".encode())
        found.update(np.ascontiguousarray(state_dict[key], "<f4").data)
    found.update(np.ascontiguousarray(batch, "<f4").data)
    return found.hexdigest()
