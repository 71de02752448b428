"""Convolution and pooling as plain loops over their definitions, in float64, and the shapes to try them on.

Every operation visits triples "this output takes that input (times that weight)"; the value gathers over
them and the gradient scatters over the same ones.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from convjax.ops import Padding, Size

Array: TypeAlias = NDArray[Any]
Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Geometry:
    """A window moving over an image."""

    image: tuple[int, int]
    window: tuple[int, int]
    stride: Size
    padding: Padding
    dilation: Size = 1

    @property
    def strides(self) -> tuple[int, int]:
        return both(self.stride)

    @property
    def dilations(self) -> tuple[int, int]:
        return both(self.dilation)

    @property
    def spans(self) -> tuple[int, int]:
        (h, w), (down, across) = self.window, self.dilations
        return down * (h - 1) + 1, across * (w - 1) + 1

    @property
    def pads(self) -> Pads:
        if self.padding == "VALID":
            return (0, 0), (0, 0)
        if self.padding == "SAME":
            rows, columns = map(same_padding, self.image, self.spans, self.strides)
            return rows, columns
        if isinstance(self.padding, int):
            return ((self.padding, self.padding),) * 2
        rows, columns = self.padding
        return rows, columns

    @property
    def output(self) -> tuple[int, int]:
        """Number of places at which the window can lie inside of the padded image, by counting them."""
        rows, columns = (
            len(range(-low, size + high - span + 1, s))
            for size, span, s, (low, high) in zip(self.image, self.spans, self.strides, self.pads, strict=True)
        )
        return rows, columns

    def taps(self) -> Iterator[tuple[int, int, int, int, int, int]]:
        """Yields (i, j, u, v, a, b): at output (i, j) the window's (u, v) lies on the image's pixel (a, b)."""
        (top, _), (left, _) = self.pads
        for i, j, u, v in itertools.product(*map(range, (*self.output, *self.window))):
            a = i * self.strides[0] + u * self.dilations[0] - top
            b = j * self.strides[1] + v * self.dilations[1] - left
            if 0 <= a < self.image[0] and 0 <= b < self.image[1]:
                yield i, j, u, v, a, b


def both(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def same_padding(size: int, span: int, stride: int) -> tuple[int, int]:
    """The padding of `SAME` as TensorFlow's documentation of `tf.nn` gives it."""
    total = max(span - (size % stride or stride), 0)
    return total // 2, total - total // 2


def conv2d(x: Array, kernel: Array, g: Geometry, groups: int) -> Array:
    y = np.zeros((x.shape[0], *g.output, kernel.shape[3]))
    for (i, j, u, v, a, b), c, o, source in _connections(kernel, g, groups):
        y[:, i, j, o] += x[:, a, b, source] * kernel[u, v, c, o]
    return y


def conv2d_gradient(x: Array, kernel: Array, dy: Array, g: Geometry, groups: int) -> tuple[Array, Array]:
    """The gradient of `sum(dy * conv2d(x, kernel))` in `x` and in `kernel`."""
    dx, dkernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for (i, j, u, v, a, b), c, o, source in _connections(kernel, g, groups):
        dx[:, a, b, source] += dy[:, i, j, o] * kernel[u, v, c, o]
        dkernel[u, v, c, o] += np.sum(dy[:, i, j, o] * x[:, a, b, source])
    return dx, dkernel


def _connections(
    kernel: Array, g: Geometry, groups: int
) -> Iterator[tuple[tuple[int, int, int, int, int, int], int, int, int]]:
    per_group, features = kernel.shape[2:]
    # Output channels are dealt out to the groups in order, as many to each.
    members = [(group, o) for group, block in enumerate(np.split(np.arange(features), groups)) for o in block]
    for tap, c, (group, o) in itertools.product(g.taps(), range(per_group), members):
        yield tap, c, int(o), group * per_group + c


def max_pool(x: Array, dy: Array, g: Geometry) -> tuple[Array, Array]:
    """The maxima, and the gradient of `sum(dy * maxima)` if it goes to the first maximum in row order."""
    shape = (x.shape[0], *g.output, x.shape[3])
    y, where = np.full(shape, -np.inf), np.zeros((*shape, 2), int)
    for i, j, _, _, a, b in g.taps():
        greater = x[:, a, b] > y[:, i, j]
        y[:, i, j][greater] = x[:, a, b][greater]
        where[:, i, j][greater] = a, b
    dx = np.zeros(x.shape)
    for n, i, j, c in np.ndindex(shape):
        a, b = where[n, i, j, c]
        dx[n, a, b, c] += dy[n, i, j, c]
    return y, dx


def avg_pool(x: Array, dy: Array, g: Geometry, count_padding: bool) -> tuple[Array, Array]:
    """The means, and the gradient of `sum(dy * means)`."""
    inside = np.zeros(g.output)
    for i, j, *_ in g.taps():
        inside[i, j] += 1
    count = np.full(g.output, g.window[0] * g.window[1]) if count_padding else inside
    y, dx = np.zeros((x.shape[0], *g.output, x.shape[3])), np.zeros(x.shape)
    for i, j, _, _, a, b in g.taps():
        y[:, i, j] += x[:, a, b] / count[i, j]
        dx[:, a, b] += dy[:, i, j] / count[i, j]
    return y, dx


def integers(seed: int, *shape: int) -> Any:
    """Small integers as float32: sums of their products are exact, so that results must agree to the last bit.

    A NumPy array, typed so that functions on JAX arrays take it too.
    """
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Geometry, int, tuple[int, ...], tuple[int, ...]]:
    """Draws a geometry, the number of groups, and the shapes of images and kernel."""
    groups, per_group, multiplier = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    window = draw(_pair(1, 4))
    dilation = draw(_size(1, 3))
    spans = tuple(d * (w - 1) + 1 for d, w in zip(both(dilation), window, strict=True))
    g = _geometry(draw, window, (spans[0], spans[1]), dilation, most=(6, 6))
    return g, groups, (draw(st.integers(1, 2)), *g.image, groups * per_group), (*window, per_group, groups * multiplier)


@st.composite
def poolings(draw: st.DrawFn) -> tuple[Geometry, tuple[int, ...]]:
    """Draws a geometry and the shape of the images."""
    window = draw(_pair(1, 4))
    g = _geometry(draw, window, window, 1, most=(window[0] - 1, window[1] - 1))
    return g, (draw(st.integers(1, 2)), *g.image, draw(st.integers(1, 2)))


def _geometry(
    draw: st.DrawFn, window: tuple[int, int], spans: tuple[int, int], dilation: Size, most: tuple[int, int]
) -> Geometry:
    kind = draw(st.sampled_from(["int", "pairs", "SAME", "VALID"]))
    padding: Padding = "SAME"
    if kind == "VALID":
        padding = "VALID"
    elif kind == "int":
        padding = draw(st.integers(0, min(*most, 3)))
    elif kind == "pairs":
        rows, columns = (draw(st.tuples(*[st.integers(0, min(m, 3))] * 2)) for m in most)
        padding = (rows, columns)
    stride = draw(_size(1, 3))
    # SAME fits any window; otherwise the image must be what padding leaves of the window, or larger.
    pads = Geometry((1, 1), window, stride, padding, dilation).pads
    least = (1 if kind == "SAME" else max(1, span - low - high) for span, (low, high) in zip(spans, pads, strict=True))
    rows_, columns_ = (draw(st.integers(n, max(n, 7))) for n in least)
    return Geometry((rows_, columns_), window, stride, padding, dilation)


def _pair(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def _size(low: int, high: int) -> st.SearchStrategy[Size]:
    return st.one_of(st.integers(low, high), _pair(low, high))
