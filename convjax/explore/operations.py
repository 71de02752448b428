"""What the page shows of single operations: requests, checked, and the numbers that `convjax.ops` gives for them."""

import dataclasses
import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convjax import ops
from convjax.errors import UsageError, check_choices
from convjax.norms import norm_factory
from convjax.ops.geometry import pad_pairs

KERNELS: dict[str, tuple[tuple[float, ...], ...]] = {
    "Identity": ((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    "Box blur": ((1 / 9,) * 3,) * 3,
    "Gaussian blur": tuple(tuple(a * b / 256 for b in (1, 4, 6, 4, 1)) for a in (1, 4, 6, 4, 1)),
    "Sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    "Sobel x": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "Sobel y": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "Emboss": ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)),
    "Laplacian": ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
}
"""Kernels by name, as they are slid over the image (a cross-correlation: none is flipped)."""

SIDES = (8, 16, 32, 64, 128)
"""Pixels that the longer side of an image may have where operations are looked at."""
_MAX_PADDING = 64
_MAX_STEPS = 100

Channel = Literal["grey", "red", "green", "blue", "all"]


@dataclasses.dataclass(frozen=True)
class View:
    """An operation on an image, and all that is needed to draw it.

    Attributes:
        input: float32 `[H, W, C]`.
        output: float32 `[H_out, W_out, 1]`.
        window: height and width of the window.
        pads: ((top, bottom), (left, right)) pixels that are added to the input.
    """

    input: NDArray[np.float32]
    output: NDArray[np.float32]
    window: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution of an image's channels to one output channel.

    Attributes:
        kernel: rows of the kernel, 3 x 3 to 7 x 7; all channels have the same.
        channel: which of the image's channels goes in; `all` are three, which the convolution sums over.
        side: pixels of the longer side, to which larger images are reduced.
        stride: see `convjax.ops.conv2d`, as `padding` and `dilation`.
        padding: SAME, VALID, or pixels on every side.
        dilation: pixels between taps.
    """

    kernel: list[list[float]]
    channel: Channel = "grey"
    side: int = 64
    stride: int = 1
    padding: int | Literal["SAME", "VALID"] = "SAME"
    dilation: int = 1

    def __post_init__(self) -> None:
        check_choices(self, "convolution")
        if self.side not in SIDES:
            raise UsageError(f"side is {self.side!r}: it must be one of {', '.join(map(str, SIDES))}")
        _check_padding(self.padding)
        rows = self.kernel if isinstance(self.kernel, list) else []
        if not 3 <= len(rows) <= 7 or any(not isinstance(row, list) or len(row) != len(rows) for row in rows):
            raise UsageError("the kernel must have as many columns as rows, 3 to 7 of them")
        if any(not _is_number(value) for row in rows for value in row):
            raise UsageError("each value of the kernel must be a number between -1000 and 1000")

    def __call__(self, image: Image.Image) -> View:
        x = pixels(image, self.channel, self.side)
        kernel = np.array(self.kernel, np.float32)
        window = kernel.shape[0], kernel.shape[1]
        weights = jnp.repeat(jnp.asarray(kernel)[:, :, None, None], x.shape[-1], axis=2)
        strides, dilations = (self.stride, self.stride), (self.dilation, self.dilation)
        y = ops.conv2d(jnp.asarray(x)[None], weights, stride=self.stride, padding=self.padding, dilation=self.dilation)
        pads = pad_pairs(self.padding, (x.shape[0], x.shape[1]), window, strides, dilations)
        return View(x, np.asarray(y[0]), window, pads)


@dataclasses.dataclass(frozen=True)
class Pooling:
    """The pooling of one channel.

    Attributes:
        kind: the maximum of each window, its mean, or its mean without the padding.
        window: height and width of a window.
        stride: pixels between windows.
        padding: SAME, VALID, or pixels on every side.
    """

    kind: Literal["max", "average", "average inside"]
    window: int = 2
    stride: int = 2
    padding: int | Literal["SAME", "VALID"] = "VALID"

    def __post_init__(self) -> None:
        check_choices(self, "pooling")
        _check_padding(self.padding)

    def __call__(self, x: NDArray[np.float32]) -> View:
        """Pools `[H, W, 1]`."""
        given, images = {"stride": self.stride, "padding": self.padding}, jnp.asarray(x)[None]
        if self.kind == "max":
            y = ops.max_pool(images, self.window, **given)  # type: ignore[arg-type]
        else:
            y = ops.avg_pool(images, self.window, count_padding=self.kind == "average", **given)  # type: ignore[arg-type]
        window = (self.window, self.window)
        pads = pad_pairs(self.padding, (x.shape[0], x.shape[1]), window, (self.stride, self.stride))
        return View(x, np.asarray(y[0]), window, pads)


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Batch normalization of one channel.

    Attributes:
        train: whether the batch's own statistics are used, or else the running ones.
        steps: training steps on this batch that the running statistics have seen.
        scale: the learned scale.
        bias: the learned bias.
    """

    train: bool = True
    steps: int = 10
    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.train, bool):
            raise UsageError(f"train is {self.train!r}: it must be true or false")
        if type(self.steps) is not int or not 0 <= self.steps <= _MAX_STEPS:
            raise UsageError(f"steps is {self.steps!r}: it must be a whole number from 0 to {_MAX_STEPS}")
        for name in ("scale", "bias"):
            if not _is_number(getattr(self, name)):
                raise UsageError(f"{name} is {getattr(self, name)!r}: it must be a number between -1000 and 1000")

    def __call__(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, float]:
        """Normalises `[H, W, 1]`; returns the result, and the mean and the variance that it was normalised with."""
        y, mean, variance = _batch_norm(
            jnp.asarray(x)[None], jnp.float32(self.scale), jnp.float32(self.bias), self.steps, train=self.train
        )
        return np.asarray(y[0]), float(mean), float(variance)


@functools.partial(jax.jit, static_argnames="train")
def _batch_norm(
    batch: jax.Array, scale: jax.Array, bias: jax.Array, steps: int, *, train: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the normalised batch `[1, H, W, 1]`, and the mean and variance of its one channel that were used."""
    params = {"scale": scale[None], "bias": bias[None]}

    def step(running: Any) -> tuple[jax.Array, Any]:
        norm: Any = norm_factory("batch", train=True, dtype=jnp.float32)()
        y, changed = norm.apply({"params": params, "batch_stats": running}, batch, mutable=["batch_stats"])
        return y, changed["batch_stats"]

    start = {"mean": jnp.zeros(1), "var": jnp.ones(1)}
    if train:
        return step(start)[0], batch.mean(), batch.var()
    running = jax.lax.fori_loop(0, steps, lambda _, running: step(running)[1], start)
    norm: Any = norm_factory("batch", train=False, dtype=jnp.float32)()
    y = norm.apply({"params": params, "batch_stats": running}, batch)
    return y, running["mean"][0], running["var"][0]


def pixels(image: Image.Image, channel: Channel, side: int) -> NDArray[np.float32]:
    """Returns an image reduced to at most `side` pixels a side, as values from 0 to 1: `[H, W, 1]`, or 3 for `all`."""
    plain = image.convert("L" if channel == "grey" else "RGB")
    factor = min(1.0, side / max(plain.size))
    size = max(1, round(plain.width * factor)), max(1, round(plain.height * factor))
    values = np.asarray(plain.resize(size, Image.Resampling.BOX), np.float32) / np.float32(255)
    if channel == "grey":
        return values[..., None]
    return values if channel == "all" else values[..., ["red", "green", "blue"].index(channel), None]


def _check_padding(padding: object) -> None:
    """Makes sure that padding does not need the whole memory; whether it is padding at all, `convjax.ops` says."""
    if isinstance(padding, int) and padding > _MAX_PADDING:
        raise UsageError(f"padding is {padding}: it must be at most {_MAX_PADDING}")


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and abs(value) <= 1000  # type: ignore[arg-type]
