"""Convolutions rewritten into what XLA computes fast on a CPU: matrix products, and convolutions without holes.

Only what was measured to be faster is rewritten; the rest is left to XLA.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convjax.ops.cpu import winograd
from convjax.ops.cpu.operations import Convolution, Pair, Task
from convjax.ops.cpu.parts import images_at_once

_COLUMNS = 4 * 2**20
"""Bytes of windows that are written out at a time: about what stays in a core's cache."""
_FEW, _MANY = 4, 32
"""Input channels up to which, and from which on, a kernel's gradient gains by windows written out."""

Rule = Callable[[jax.Array, jax.Array], jax.Array]


def rule(c: Convolution, dtype: Any, divided: bool) -> Rule | None:
    """Returns how to compute a convolution from the operands of JAX's primitive; None to leave it to XLA.

    Args:
        c: what is computed.
        dtype: of the operands.
        divided: whether XLA divides the batch among devices. It cannot divide a loop over parts of the batch, but
            gathers all of it on each device, and adds up the 16 sums of a transformed kernel one by one.
    """
    if c.groups != 1:
        return _depthwise_rule(c) if c.depthwise else None
    if winograd.serves(c) and not divided:
        return _winograd_rule(c)
    if dtype == jnp.float16:
        return None  # XLA's products of matrices are no faster in it than its convolutions
    pointwise = c.kernel[:2] == (1, 1) and c.low == c.high == (0, 0)
    inputs = c.kernel[2]
    if c.task is Task.FORWARD and pointwise:
        return lambda x, kernel: _product_forward(c, x, kernel)
    if c.task is Task.BACKWARD_DATA and c.dilation == (1, 1):
        return lambda dy, kernel: _backward_data(c, dy, kernel)
    if c.task is Task.BACKWARD_WEIGHTS and pointwise:
        return lambda x, dy: _arranged(c, _by_columns(c, x, dy))
    if c.task is Task.BACKWARD_WEIGHTS and not divided and not _FEW < inputs < _MANY:
        return lambda x, dy: _arranged(c, _in_parts(c, x, dy))
    return None


def _winograd_rule(c: Convolution) -> Rule:
    if c.task is Task.FORWARD:
        return lambda x, kernel: winograd.convolve(x, _hwio(c, kernel), c.low, (c.output[1], c.output[2]))
    if c.task is Task.BACKWARD_WEIGHTS:
        return lambda x, dy: _arranged(c, winograd.kernel_gradient(x, dy, c.low))
    # The kernel has been turned round already.
    low, size = (2 - c.low[0], 2 - c.low[1]), (c.images[1], c.images[2])
    return lambda dy, kernel: winograd.convolve(dy, _hwio(c, kernel).swapaxes(2, 3), low, size)


def _depthwise_rule(c: Convolution) -> Rule | None:
    """Returns how to convolve each channel by itself: tap by tap, so that XLA works on whole rows of channels."""
    if c.task is Task.FORWARD:
        return lambda x, kernel: _weighted(_taps(c, x), _hwio(c, kernel)[:, :, 0])
    if c.task is Task.BACKWARD_WEIGHTS:
        return lambda x, dy: _arranged(c, _depthwise_weights(c, x, dy))
    return None if c.dilation != (1, 1) else lambda dy, kernel: _backward_data(c, dy, kernel)


def _hwio(c: Convolution, kernel: jax.Array) -> jax.Array:
    return kernel.transpose(c.kernel_axes)


def _arranged(c: Convolution, gradient: jax.Array) -> jax.Array:
    """Puts an HWIO gradient into the order that was asked for."""
    return gradient.transpose([c.kernel_axes.index(axis) for axis in range(4)])


def _product_forward(c: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    seen = x[:, :: c.stride[0], :: c.stride[1]]
    return lax.dot_general(seen, _hwio(c, kernel)[0, 0], (((3,), (0,)), ((), ())))


def _by_columns(c: Convolution, x: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient of a kernel: windows of all images as rows of one matrix, times the output's gradient."""
    taps = _taps(c, x)
    written = taps[0] if len(taps) == 1 else jnp.concatenate(taps, -1)
    summed = lax.dot_general(written, dy, (((0, 1, 2), (0, 1, 2)), ((), ())))
    return summed.reshape(c.kernel)


def _taps(c: Convolution, x: jax.Array) -> list[jax.Array]:
    """Returns what each tap of the kernel meets, `[N, H_out, W_out, C]`, in row order."""
    height, width = c.kernel[:2]
    rows, columns = c.output[1:3]
    padded = jnp.pad(x, ((0, 0), *c.pads, (0, 0)))
    return [
        lax.slice(
            padded,
            (0, u, v, 0),
            (len(x), u + (rows - 1) * c.stride[0] + 1, v + (columns - 1) * c.stride[1] + 1, x.shape[-1]),
            (1, *c.stride, 1),
        )
        for u in range(0, height * c.dilation[0], c.dilation[0])
        for v in range(0, width * c.dilation[1], c.dilation[1])
    ]


def _weighted(taps: list[jax.Array], weights: jax.Array) -> jax.Array:
    """Returns the sum of taps times their weights `[height, width, C]`, taken in float32 at the least."""
    wide = jnp.promote_types(weights.dtype, jnp.float32)
    each = weights.astype(wide).reshape(len(taps), -1)
    summed = sum((tap.astype(wide) * weight for tap, weight in zip(taps, each, strict=True)), jnp.zeros((), wide))
    return jnp.asarray(summed).astype(weights.dtype)


def _depthwise_weights(c: Convolution, x: jax.Array, dy: jax.Array) -> jax.Array:
    """The gradient of a depthwise kernel: of every tap, the sum of what it met times the output's gradient."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    summed = [(tap.astype(wide) * dy.astype(wide)).sum((0, 1, 2)) for tap in _taps(c, x)]
    return jnp.stack(summed).astype(x.dtype).reshape(c.kernel)


def _in_parts(c: Convolution, x: jax.Array, dy: jax.Array) -> jax.Array:
    """The same for so many images at a time as the windows of fit into a cache."""
    bytes_an_image = math.prod(c.output[1:3]) * math.prod(c.kernel[:3]) * x.dtype.itemsize
    part = images_at_once(len(x), bytes_an_image, _COLUMNS)
    if part == len(x):
        return _by_columns(c, x, dy)
    parts = x.reshape(-1, part, *x.shape[1:]), dy.reshape(-1, part, *dy.shape[1:])

    def add(total: jax.Array, given: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + _by_columns(c, *given).astype(total.dtype), None

    total, _ = lax.scan(add, jnp.zeros(c.kernel, jnp.float32), parts)
    return total.astype(x.dtype)


def _backward_data(c: Convolution, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """The gradient of a strided convolution's images, one phase of the stride after the other.

    Pixels whose places agree modulo the stride have seen the same taps of the kernel: each such phase is a convolution
    without the zeros that the definition puts between the output's pixels. The phases are then interleaved.
    """
    taps = lax.rev(_hwio(c, kernel), (0, 1))  # height, width, inputs, outputs: of the forward pass
    phases = [[_phase(c, dy, taps, (a, b)) for b in range(c.stride[1])] for a in range(c.stride[0])]
    rows = jnp.stack([jnp.stack(row, axis=3) for row in phases], axis=2)
    batch, height, width, channels = c.images
    sizes = [-(-size // s) * s for size, s in zip((height, width), c.stride, strict=True)]
    return rows.reshape(batch, *sizes, channels)[:, :height, :width]


def _phase(c: Convolution, dy: jax.Array, taps: jax.Array, phase: Pair) -> jax.Array:
    """The gradient of the pixels at `stride * q + phase`: tap `first + stride * m` meets output `q + ahead - m`."""
    size = [-(-c.images[i + 1] // c.stride[i]) for i in range(2)]
    first = [(phase[i] + c.low[i]) % c.stride[i] for i in range(2)]
    ahead = [(phase[i] + c.low[i] - first[i]) // c.stride[i] for i in range(2)]
    seen = taps[first[0] :: c.stride[0], first[1] :: c.stride[1]]
    if 0 in seen.shape:
        return jnp.zeros((c.images[0], *size, c.images[3]), dy.dtype)
    before = [seen.shape[i] - 1 - ahead[i] for i in range(2)]
    behind = [size[i] + seen.shape[i] - 1 - c.output[i + 1] - before[i] for i in range(2)]
    edges = [(before[i], behind[i], 0) for i in range(2)]
    padded = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
    if seen.shape[:2] == (1, 1) and c.groups == 1:
        return lax.dot_general(padded, seen[0, 0], (((3,), (1,)), ((), ())))
    flipped = lax.rev(seen, (0, 1)).swapaxes(2, 3)
    if c.groups != 1:
        there = [padded[:, u : u + size[0], v : v + size[1]] for u, v in np.ndindex(flipped.shape[:2])]
        return _weighted(there, flipped[:, :, 0])
    return lax.conv_general_dilated(padded, flipped, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
