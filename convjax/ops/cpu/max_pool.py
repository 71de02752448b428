"""The gradient of maximum pooling, tap by tap of the window: XLA's own, select-and-scatter, is slow on a CPU."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LARGEST = 25
"""Pixels of a window up to which taps are taken one by one."""


def serves(operand: Any, params: dict[str, Any]) -> bool:
    """Says whether a call of `select_and_scatter_add_p` is the gradient of an image's maximum pooling."""
    window, strides, padding = params["window_dimensions"], params["window_strides"], params["padding"]
    return (
        len(operand.shape) == 4
        and params["select_prim"] is lax.ge_p
        and (window[0], window[3], strides[0], strides[3]) == (1, 1, 1, 1)
        and tuple(padding[0]) == tuple(padding[3]) == (0, 0)
        and min(*padding[1], *padding[2]) >= 0
        and window[1] * window[2] <= _LARGEST
        and jnp.issubdtype(operand.dtype, jnp.floating)
    )


def gradient(dy: jax.Array, x: jax.Array, params: dict[str, Any]) -> jax.Array:
    """Returns the gradient of the images `[N, H, W, C]`; of equal maxima the first in row order gets all."""
    window, strides = params["window_dimensions"], params["window_strides"]
    _, rows, columns, _ = params["padding"]
    largest = lax.reduce_window(x, jnp.array(-jnp.inf, x.dtype), lax.max, window, strides, params["padding"])
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
    return result[:, rows[0] : rows[0] + x.shape[1], columns[0] : columns[0] + x.shape[2]]
