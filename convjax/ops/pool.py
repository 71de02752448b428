"""Pooling: a summary of each window, channel by channel."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convjax.ops.geometry import Padding, Size, check_image, output_size, pad_pairs, pair

_Geometry: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]


def max_pool(x: jax.Array, window: Size, *, stride: Size | None = None, padding: Padding = "VALID") -> jax.Array:
    """Takes the maximum of each window.

        y[n, i, j, c] = max over u, v of x[n, i * stride + u - top, j * stride + v - left, c]

    over the pixels inside of the image. The gradient goes to the first maximum of a window in row order.

    Args:
        x: images `[N, H, W, C]`.
        window: height and width of a window.
        stride: pixels between neighbouring windows; the window's own size unless given.
        padding: see `convjax.ops.Padding`; smaller than the window, so that no window is empty.

    Returns:
        `[N, H_out, W_out, C]` with the sizes of `convjax.ops.output_size`.

    Raises:
        ValueError: `x` is no batch of images, or the geometry gives an empty window or output.
    """
    lowest = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    # A NumPy constant: one of JAX's would be traced under jit, and then there is no gradient.
    return lax.reduce_window(x, np.array(lowest, x.dtype), lax.max, *_geometry(x, window, stride, padding))


def avg_pool(
    x: jax.Array,
    window: Size,
    *,
    stride: Size | None = None,
    padding: Padding = "VALID",
    count_padding: bool = True,
) -> jax.Array:
    """Takes the mean of each window.

        y[n, i, j, c] = 1 / count * sum over u, v of x[n, i * stride + u - top, j * stride + v - left, c]

    where pixels outside of the image are zero, and `count` is the size of the window, or with
    `count_padding=False` the number of its pixels inside of the image. Arguments, result and errors are
    those of `max_pool`; besides, `x` must be of a floating dtype, since integers would overflow in the sum.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"avg_pool takes floating-point images, not {x.dtype}")
    size, strides, pads = _geometry(x, window, stride, padding)
    zero = np.zeros((), x.dtype)  # NumPy, as in max_pool
    total = lax.reduce_window(x, zero, lax.add, size, strides, pads)
    if count_padding:
        return total / (size[1] * size[2])
    inside = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    return total / lax.reduce_window(inside, zero, lax.add, size, strides, pads)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Takes the mean over all pixels: `[N, H, W, C]` to `[N, C]` (Lin et al. 2013, arXiv:1312.4400)."""
    check_image(x.shape, "global_avg_pool")
    return jnp.mean(x, axis=(1, 2))


def adaptive_avg_pool(x: jax.Array, output: Size) -> jax.Array:
    """Takes means over as many windows as the output has pixels, whatever the image's size, as PyTorch does.

    Window i of n over an axis of length L reaches from `floor(i * L / n)` to `ceil((i + 1) * L / n)`: windows
    overlap where n does not divide L, and repeat pixels where n is larger.

    Args:
        x: images `[N, H, W, C]` of a floating dtype.
        output: height and width of the output.

    Returns:
        `[N, *output, C]`.
    """
    check_image(x.shape, "adaptive_avg_pool")
    rows, columns = pair(output, "output")
    if x.shape[1:3] == (rows, columns):
        return x
    down, across = (_window_means(x.shape[1 + i], n).astype(x.dtype) for i, n in enumerate((rows, columns)))
    return jnp.einsum("nhwc,ph,qw->npqc", x, down, across)


def _window_means(length: int, windows: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Returns the matrix `[windows, length]` that takes an axis to the means of its windows."""
    means = np.zeros((windows, length))
    for i in range(windows):
        start, end = i * length // windows, -(-(i + 1) * length // windows)
        means[i, start:end] = 1 / (end - start)
    return means


def _geometry(x: jax.Array, window: Size, stride: Size | None, padding: Padding) -> _Geometry:
    """Returns window, strides and padding over all four axes, checked."""
    check_image(x.shape, "pooling")
    size = pair(window, "window")
    strides = pair(window if stride is None else stride, "stride")
    pads = pad_pairs(padding, (x.shape[1], x.shape[2]), size, strides)
    for length, w, s, p in zip(x.shape[1:3], size, strides, pads, strict=True):
        if max(p) >= w:
            raise ValueError(f"padding {p} is not smaller than the window ({w}): some windows would be empty")
        output_size(length, w, s, p)
    return (1, *size, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
