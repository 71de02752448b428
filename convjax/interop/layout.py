"""How PyTorch lays out the arrays that we lay out for images `[N, H, W, C]`."""

import math
from typing import Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]

Layout: TypeAlias = Literal["usual", "linear", "pixel", "flattened", "window", "column"]
"""usual: kernels `[H, W, I, O]` are `[O, I, H, W]` there (I is 1 in a depthwise one), matrices `[I, O]` are
`[O, I]`, vectors are the same. linear: our 1x1 kernel is a matrix there. pixel: our matrix is a 1x1 kernel there.
flattened: a matrix that takes a flattened image, of which we count channels fastest and PyTorch slowest. window: such a
matrix is a kernel as large as the image there.
column: our vector `[C]` is `[C, 1, 1]` there."""


def torch_shape(shape: Shape, layout: Layout, pixels: int) -> Shape:
    """Returns the shape there of what has `shape` here; `pixels` are those of the flattened image, a square."""
    if layout == "linear":
        return (shape[3], shape[2])
    if layout == "pixel":
        return (shape[1], shape[0], 1, 1)
    if layout == "window":
        return (shape[1], shape[0] // pixels, math.isqrt(pixels), math.isqrt(pixels))
    if layout == "column":
        return (*shape, 1, 1)
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def to_torch(x: Array, layout: Layout, pixels: int) -> Array:
    """Returns an array as it is laid out there; `pixels` are those of the flattened image."""
    if layout in ("flattened", "window"):
        units = x.shape[1]
        return x.reshape(pixels, -1, units).transpose(2, 1, 0).reshape(torch_shape(x.shape, layout, pixels))
    if layout == "usual" and x.ndim == 4:
        return x.transpose(3, 2, 0, 1)
    if layout == "linear":
        return x.reshape(x.shape[2:]).T
    return x.T.reshape(torch_shape(x.shape, layout, pixels))


def from_torch(x: Array, layout: Layout, pixels: int, shape: Shape) -> Array:
    """Returns an array of `shape` from how it is laid out there: the inverse of `to_torch`."""
    if layout in ("flattened", "window"):
        return x.reshape(shape[1], -1, pixels).transpose(2, 1, 0).reshape(shape)
    if layout == "usual" and x.ndim == 4:
        return x.transpose(2, 3, 1, 0)
    return x.reshape(x.shape[0], math.prod(x.shape[1:])).T.reshape(shape)
