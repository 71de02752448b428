"""Pooling and the gradient of maximum pooling, tap by tap of the window: so XLA works on whole rows of channels.

Its own reduce-window takes one number after the other on a CPU, and its select-and-scatter is slower yet.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LARGEST = 25
"""Pixels of a window up to which taps are taken one by one."""


def serves(operand: Any, params: dict[str, Any]) -> bool:
    """Says whether a call of `reduce_window_max_p` or `reduce_window_sum_p` pools images `[N, H, W, C]`.

    Windows at every pixel, of which the gradient of average pooling is a sum, are left to XLA in float32: it is twice
    as fast there, but five times as slow in bfloat16.
    """
    ones = (1,) * len(operand.shape)
    apart = tuple(params["window_strides"]) != ones or operand.dtype != jnp.float32
    undilated = tuple(params["base_dilation"]) == tuple(params["window_dilation"]) == ones
    return apart and undilated and _is_pooling(operand, params)


def serves_gradient(operand: Any, params: dict[str, Any]) -> bool:
    """Says whether a call of `select_and_scatter_add_p` is the gradient of an image's maximum pooling."""
    return params["select_prim"] is lax.ge_p and _is_pooling(operand, params)


def _is_pooling(operand: Any, params: dict[str, Any]) -> bool:
    window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    return (
        len(operand.shape) == 4
        and (window[0], window[3], strides[0], strides[3]) == (1, 1, 1, 1)
        and tuple(padding[0]) == tuple(padding[3]) == (0, 0)
        and min(*padding[1], *padding[2]) >= 0
        and window[1] * window[2] <= _LARGEST
        and jnp.issubdtype(operand.dtype, jnp.floating)
    )


def maxima(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns the largest number of each window."""
    return _combined(x, -jnp.inf, jnp.maximum, params)


def sums(x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns the sum of each window, taken in float32 at the least."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _combined(wide, 0, jnp.add, params).astype(x.dtype)


def _combined(
    x: jax.Array, outside: float, combine: Callable[[jax.Array, jax.Array], jax.Array], params: dict[str, Any]
) -> jax.Array:
    window, strides, (_, rows, columns, _) = (
        params[name] for name in ("window_dimensions", "window_strides", "padding")
    )
    padded = lax.pad(x, jnp.array(outside, x.dtype), ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0)))
    # To the last pixel that a tap at the window's first place meets.
    reach = [(padded.shape[i] - window[i]) // strides[i] * strides[i] + 1 for i in (1, 2)]
    taps = [
        padded[:, u : u + reach[0] : strides[1], v : v + reach[1] : strides[2]]
        for u in range(window[1])
        for v in range(window[2])
    ]
    return functools.reduce(combine, taps)


def gradient(dy: jax.Array, x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns the gradient of the images `[N, H, W, C]`; of equal maxima the first in row order gets all.

    In float32 at the least: XLA's loops for what is done here are 30 times as slow in bfloat16.
    """
    dtype = dy.dtype
    dy, x = (array.astype(jnp.promote_types(dtype, jnp.float32)) for array in (dy, x))
    window, strides = params["window_dimensions"], params["window_strides"]
    _, rows, columns, _ = params["padding"]
    largest = maxima(x, params)
    edges = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
    padded = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
    taken = jnp.zeros(dy.shape, bool)
    result = jnp.zeros(padded.shape, dy.dtype)
    reach = [(size - 1) * stride + 1 for size, stride in zip(dy.shape[1:3], strides[1:3], strict=True)]
    for u in range(window[1]):
        for v in range(window[2]):
            tap = (slice(None), slice(u, u + reach[0], strides[1]), slice(v, v + reach[1], strides[2]))
            hit = (padded[tap] == largest) & ~taken
            taken |= hit
            room = [
                (0, 0, 0),
                *(((u, v)[i], padded.shape[i + 1] - (u, v)[i] - reach[i], strides[i + 1] - 1) for i in range(2)),
                (0, 0, 0),
            ]
            result += lax.pad(jnp.where(hit, dy, 0), jnp.zeros((), dy.dtype), room)
    return result[:, rows[0] : rows[0] + x.shape[1], columns[0] : columns[0] + x.shape[2]].astype(dtype)
