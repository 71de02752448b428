"""Convolutions of 3 x 3 taps with 16 products for 36 in JAX: F(2 x 2, 3 x 3) of Lavin and Gray, arXiv:1509.09308.

winograd.cc is the same with its sums in registers, and explains it. Half precision is computed in float32.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from convjax.ops.cpu.operations import Convolution, Pair, Task
from convjax.ops.cpu.parts import images_at_once

_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
"""G of the paper, which transforms the kernel's rows, and its columns."""
_TILES = 16 * 2**20
"""Bytes of transformed pixels to take at a time."""
_FEWEST, _FEWEST_TILES = 32, 128
"""Channels, and tiles of 2 x 2 pixels, from which on it gains: as in winograd.cc."""
_FEWEST_OF_MANY, _MANY_TILES = 16, 2**14
"""The same of a kernel's gradient, which takes XLA thirteen times as long for four times as many images then."""


def serves(c: Convolution) -> bool:
    """Says whether it computes a convolution or its gradient faster than the definition."""
    result = c.images if c.task is Task.BACKWARD_DATA else c.output
    plain = c.groups == 1 and c.kernel[:2] == (3, 3) and c.stride == c.dilation == (1, 1)
    tiles = result[0] * -(-result[1] // 2) * -(-result[2] // 2)
    many = c.task is Task.BACKWARD_WEIGHTS and tiles >= _MANY_TILES
    fewest = _FEWEST_OF_MANY if many else _FEWEST
    return plain and min(c.kernel[2:]) >= fewest and tiles >= _FEWEST_TILES


def convolve(x: jax.Array, kernel: jax.Array, low: Pair, size: Pair) -> jax.Array:
    """Returns images convolved with a kernel.

    Args:
        x: `[N, H, W, C]`.
        kernel: `[3, 3, C, K]`.
        low: zeros above and to the left of the images; pixels less if negative.
        size: height and width of the result `[N, *size, K]`.
    """
    outputs = kernel.shape[3]
    factors = jnp.einsum("ai,bj,ijck->abck", _KERNEL, _KERNEL, kernel.astype(jnp.float32))

    def part(x: jax.Array) -> jax.Array:
        tiles = _transformed(x, low, size)
        products = [[jnp.dot(tiles[a][b], factors[a, b]) for b in range(4)] for a in range(4)]
        rows = zip(*(_back(column) for column in zip(*products, strict=True)), strict=True)
        pixels = jnp.stack([jnp.stack(_back(row), axis=3) for row in rows], axis=2)
        whole = pixels.reshape(len(x), 2 * pixels.shape[1], -1, outputs)
        return whole[:, : size[0], : size[1]].astype(x.dtype)

    (parts,) = _in_parts(size, max(x.shape[3], outputs), x)
    if len(parts) == 1:
        return part(x)
    return lax.map(part, parts).reshape(len(x), *size, outputs)


def kernel_gradient(x: jax.Array, dy: jax.Array, low: Pair) -> jax.Array:
    """Returns the gradient `[3, 3, C, K]` of the kernel.

    Args:
        x: images `[N, H, W, C]`.
        dy: the output's gradient `[N, H_out, W_out, K]`.
        low: zeros above and to the left of the images; pixels less if negative.
    """
    size = dy.shape[1], dy.shape[2]
    even = [(0, length % 2, 0) for length in size]

    def add(sums: list[list[jax.Array]], part: tuple[jax.Array, ...]) -> tuple[list[list[jax.Array]], None]:
        x, dy = part
        tiles = _transformed(x, low, size)
        whole = lax.pad(dy.astype(jnp.float32), jnp.float32(0), ((0, 0, 0), *even, (0, 0, 0)))
        columns = [_spread(whole[:, ::2, v::2], whole[:, 1::2, v::2]) for v in range(2)]
        slopes = [_spread(*row) for row in zip(*columns, strict=True)]
        return [[sums[a][b] + _summed(tiles[a][b], slopes[a][b]) for b in range(4)] for a in range(4)], None

    none = jnp.zeros((x.shape[3], dy.shape[3]), jnp.float32)
    sums, _ = lax.scan(add, [[none] * 4] * 4, _in_parts(size, max(x.shape[3], dy.shape[3]), x, dy))
    return jnp.einsum("ai,bj,abck->ijck", _KERNEL, _KERNEL, jnp.array(sums)).astype(x.dtype)


def _in_parts(size: Pair, channels: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Returns arrays of images with an axis for the parts in front."""
    bytes_an_image = 16 * 4 * channels * -(-size[0] // 2) * -(-size[1] // 2)
    part = images_at_once(len(arrays[0]), bytes_an_image, _TILES)
    return tuple(array.reshape(-1, part, *array.shape[1:]) for array in arrays)


def _transformed(x: jax.Array, low: Pair, size: Pair) -> list[list[jax.Array]]:
    """Returns what each tile's 4 x 4 pixels become, `[N, rows, columns, C]` each."""
    tiles = [-(-length // 2) for length in size]
    edges = [(low[i], 2 * tiles[i] + 2 - x.shape[i + 1] - low[i], 0) for i in range(2)]
    padded = lax.pad(x.astype(jnp.float32), jnp.float32(0), ((0, 0, 0), *edges, (0, 0, 0)))
    rows = _differences([padded[:, u : u + 2 * tiles[0] : 2] for u in range(4)])
    return [_differences([row[:, :, v : v + 2 * tiles[1] : 2] for v in range(4)]) for row in rows]


def _summed(tiles: jax.Array, slopes: jax.Array) -> jax.Array:
    """Returns the products of channels `[C, K]`, summed over all tiles."""
    return tiles.reshape(-1, tiles.shape[3]).T @ slopes.reshape(-1, slopes.shape[3])


def _differences(d: list[jax.Array]) -> list[jax.Array]:
    """B^T of the paper."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _back(m: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """A^T of the paper."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


def _spread(first: jax.Array, second: jax.Array) -> list[jax.Array]:
    """A of the paper."""
    return [first, first + second, first - second, -second]
