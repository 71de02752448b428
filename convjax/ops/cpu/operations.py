"""What a convolution of JAX computes, in the terms of kernels: forward, or one of the two gradients.

Differentiating `lax.conv_general_dilated` gives other calls of it, with dimensions swapped and strides turned into
dilations. Kernels are written for the three things that are meant; this module tells which one a call is.
"""

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

Pair: TypeAlias = tuple[int, int]

_IMAGES = (0, 3, 1, 2)
"""Where batch, channels, height and width are in NHWC."""
_IMAGES_SWAPPED = (3, 0, 1, 2)
"""The same with batch and channels in each other's role, as a kernel's gradient sums over the batch."""
_DTYPES = (jnp.float32, jnp.bfloat16, jnp.float16)


class Task(enum.IntEnum):
    """What is computed: the numbers are those of convolution.h."""

    FORWARD = 0
    BACKWARD_DATA = 1
    BACKWARD_WEIGHTS = 2


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One two-dimensional convolution, as its forward pass is described, and what of it is to be computed.

    Attributes:
        task: the output, or the gradient of the images, or that of the kernel.
        groups: groups of channels.
        images: N, H, W, C.
        kernel: height, width, input channels of a group, output channels of all.
        kernel_axes: where these are in the kernel's array, or in its gradient's.
        output: N, H, W, C.
        stride: pixels between neighbouring windows.
        dilation: pixels between neighbouring taps.
        low: zeros above and to the left.
        high: zeros below and to the right.
        flipped: whether the kernel's array has height and width reversed.
    """

    task: Task
    groups: int
    images: tuple[int, ...]
    kernel: tuple[int, ...]
    kernel_axes: tuple[int, ...]
    output: tuple[int, ...]
    stride: Pair
    dilation: Pair
    low: Pair
    high: Pair
    flipped: bool

    @property
    def pads(self) -> tuple[Pair, Pair]:
        """Zeros before and behind, of rows and of columns."""
        return (self.low[0], self.high[0]), (self.low[1], self.high[1])

    @property
    def depthwise(self) -> bool:
        """Whether each channel is convolved by itself, into one."""
        return self.groups != 1 and self.kernel[2:] == (1, self.groups)

    def numbers(self) -> tuple[int, ...]:
        """Returns the 28 numbers that describe it to convolution.h: sizes as NCHW and GOIHW."""
        height, width, inputs, outputs = self.kernel
        a_group = outputs // self.groups
        # Groups lie beside each other along the outputs, but in the transposed kernel of the images' gradient along
        # the inputs.
        sizes = (height, width, inputs * self.groups, a_group) if self.flipped else self.kernel
        shape = [size for _, size in sorted(zip(self.kernel_axes, sizes, strict=True))]
        strides = [math.prod(shape[axis + 1 :]) for axis in self.kernel_axes]
        between = strides[2] * inputs if self.flipped else strides[3] * a_group
        return (
            self.task,
            self.groups,
            *(self.images[axis] for axis in _IMAGES),
            *(self.groups, a_group, inputs, height, width),
            *(between, strides[3], strides[2], strides[0], strides[1]),
            *(self.output[axis] for axis in _IMAGES),
            *self.stride,
            *self.dilation,
            *self.low,
            *self.high,
        )


def recognise(lhs: Any, rhs: Any, out: Any, params: dict[str, Any]) -> Convolution | None:
    """Returns what a call of `conv_general_dilated_p` computes, or None if it is none that kernels know.

    Args:
        lhs: abstract value of the left operand, with `shape` and `dtype`.
        rhs: of the right operand.
        out: of the result.
        params: the primitive's parameters.
    """
    if len(lhs.shape) != 4 or not lhs.dtype == rhs.dtype == out.dtype or lhs.dtype not in _DTYPES:
        return None
    if 0 in (*lhs.shape, *rhs.shape, *out.shape) or not all(
        isinstance(size, int) for size in (*lhs.shape, *rhs.shape, *out.shape)
    ):
        return None
    if params["precision"] not in (None, (jax.lax.Precision.DEFAULT, jax.lax.Precision.DEFAULT)):
        return None
    numbers = params["dimension_numbers"]
    layout = tuple(numbers.lhs_spec), tuple(numbers.out_spec)
    if layout == (_IMAGES, _IMAGES) and params["batch_group_count"] == 1:
        found = [_forward(lhs, rhs, out, params), _backward_data(lhs, rhs, out, params)]
    elif layout[0] == tuple(numbers.rhs_spec) == _IMAGES_SWAPPED and params["feature_group_count"] == 1:
        found = [_backward_weights(lhs, rhs, out, params)]
    else:
        return None
    return next((convolution for convolution in found if convolution is not None and _fits(convolution)), None)


def _forward(lhs: Any, rhs: Any, out: Any, params: dict[str, Any]) -> Convolution | None:
    if params["lhs_dilation"] != (1, 1):
        return None
    outputs, inputs, *window = params["dimension_numbers"].rhs_spec
    axes = (*window, inputs, outputs)
    (top, bottom), (left, right) = params["padding"]
    return Convolution(
        task=Task.FORWARD,
        groups=params["feature_group_count"],
        images=lhs.shape,
        kernel=tuple(rhs.shape[axis] for axis in axes),
        kernel_axes=axes,
        output=out.shape,
        stride=params["window_strides"],
        dilation=params["rhs_dilation"],
        low=(top, left),
        high=(bottom, right),
        flipped=False,
    )


def _backward_data(lhs: Any, rhs: Any, out: Any, params: dict[str, Any]) -> Convolution | None:
    """The gradient of a strided convolution's images: spread out with zeros between, and convolved."""
    if params["window_strides"] != (1, 1):
        return None
    groups = params["feature_group_count"]
    inputs, outputs, *window = params["dimension_numbers"].rhs_spec
    axes = (*window, inputs, outputs)
    height, width, every_input, a_group = (rhs.shape[axis] for axis in axes)
    stride, dilation = params["lhs_dilation"], params["rhs_dilation"]
    reach = [d * (size - 1) for d, size in zip(dilation, (height, width), strict=True)]
    low = (reach[0] - params["padding"][0][0], reach[1] - params["padding"][1][0])
    return Convolution(
        task=Task.BACKWARD_DATA,
        groups=groups,
        images=out.shape,
        kernel=(height, width, every_input // groups, a_group * groups),
        kernel_axes=axes,
        output=lhs.shape,
        stride=stride,
        dilation=dilation,
        low=low,
        high=_high(out.shape, lhs.shape, reach, stride, low),
        flipped=True,
    )


def _backward_weights(lhs: Any, rhs: Any, out: Any, params: dict[str, Any]) -> Convolution | None:
    """The gradient of a kernel: images convolved with the output's gradient, over the batch."""
    if params["lhs_dilation"] != (1, 1):
        return None
    inputs, outputs, *window = params["dimension_numbers"].out_spec
    axes = (*window, inputs, outputs)
    stride, dilation = params["rhs_dilation"], params["window_strides"]
    kernel = tuple(out.shape[axis] for axis in axes)
    reach = [d * (size - 1) for d, size in zip(dilation, kernel[:2], strict=True)]
    low = (params["padding"][0][0], params["padding"][1][0])
    return Convolution(
        task=Task.BACKWARD_WEIGHTS,
        groups=params["batch_group_count"],
        images=lhs.shape,
        kernel=kernel,
        kernel_axes=axes,
        output=rhs.shape,
        stride=stride,
        dilation=dilation,
        low=low,
        high=_high(lhs.shape, rhs.shape, reach, stride, low),
        flipped=False,
    )


def _high(images: Sequence[int], output: Sequence[int], reach: Sequence[int], stride: Pair, low: Pair) -> Pair:
    """Returns the zeros that the last windows need below and to the right."""
    rows, columns = (max(0, (output[i + 1] - 1) * stride[i] + reach[i] + 1 - images[i + 1] - low[i]) for i in range(2))
    return rows, columns


def _fits(c: Convolution) -> bool:
    """Says whether paddings are none that crop, and all windows lie inside of them."""
    if min(*c.low, *c.high) < 0:
        return False
    for i in range(2):
        span = c.dilation[i] * (c.kernel[i] - 1) + 1
        if (c.images[i + 1] + c.low[i] + c.high[i] - span) // c.stride[i] + 1 != c.output[i + 1]:
            return False
    return True
