"""Convolutions, pooling and matrix products of a jaxpr as nodes of ONNX."""

import math
import string
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

from convjax.interop.onnx_graph import CHANNELS_FIRST, Graph, Tensor, Unsupported, Value, dtype_of, shape_of


def convolution(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `conv_general_dilated` of images `[N, H, W, C]` with kernels `[kernel_h, kernel_w, C / groups, O]`."""
    params = equation.params
    numbers = params["dimension_numbers"]
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != (CHANNELS_FIRST, (3, 2, 0, 1), CHANNELS_FIRST):
        raise Unsupported("of other layouts than NHWC and HWIO")
    if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
        raise Unsupported("that is transposed, or grouped by batches")
    images, kernel = inputs
    if isinstance(kernel, Tensor):
        weights = graph.node("Transpose", graph.name(kernel), perm=(3, 2, 0, 1))
    else:
        weights = graph.constant(kernel.transpose(3, 2, 0, 1))
    name = graph.node(
        "Conv",
        graph.name(images, channels_first=True),
        weights,
        kernel_shape=kernel.shape[:2],
        strides=params["window_strides"],
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
        pads=_pads(params["padding"]),
    )
    return Tensor(name, shape_of(equation.outvars[0]), channels_first=True)


def pooling(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `reduce_window_max` and `reduce_window_sum` over rows and columns of images."""
    params = equation.params
    window, strides, pads = params["window_dimensions"], params["window_strides"], params["padding"]
    inside = (window[0], window[-1], strides[0], strides[-1], *pads[0], *pads[-1])
    dilations = set(params["base_dilation"]) | set(params["window_dilation"])
    if len(window) != 4 or inside != (1, 1, 1, 1, 0, 0, 0, 0) or dilations != {1}:
        raise Unsupported("that is dilated, or not over rows and columns")
    if dtype_of(equation.invars[0]) != np.float32:
        raise Unsupported(f"of {dtype_of(equation.invars[0])} numbers")
    attributes = {"kernel_shape": window[1:3], "strides": strides[1:3], "pads": _pads(pads[1:3])}
    x = graph.name(inputs[0], channels_first=True)
    if equation.primitive.name == "reduce_window_max":
        name = graph.node("MaxPool", x, **attributes)
    else:
        mean = graph.node("AveragePool", x, count_include_pad=1, **attributes)
        name = graph.node("Mul", mean, graph.constant(math.prod(window), np.float32))
    return Tensor(name, shape_of(equation.outvars[0]), channels_first=True)


def _pads(pairs: Any) -> list[int]:
    """Returns the padding of rows and columns as ONNX has it: both beginnings, then both ends."""
    if min(min(pair) for pair in pairs) < 0:
        raise Unsupported("with a negative padding")
    return [int(pair[side]) for side in (0, 1) for pair in pairs]


def product(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `dot_general`: as a matrix product where a constant matrix takes the last axes, else as an Einsum."""
    (contracted, batch), after = equation.params["dimension_numbers"], shape_of(equation.outvars[0])
    left, right = inputs
    (of_left, of_right), rank = contracted, len(left.shape)
    trailing = range(rank - len(of_left), rank)
    if not isinstance(right, Tensor) and not any(batch) and sorted(of_left) == list(trailing):
        # The constant's axes are put in the order of the other's.
        order = [of_right[of_left.index(axis)] for axis in trailing]
        others = [axis for axis in range(right.ndim) if axis not in of_right]
        size = math.prod(right.shape[axis] for axis in order)
        matrix = right.transpose(*order, *others).reshape(size, -1)
        flat = (*left.shape[: trailing.start], size)
        name = graph.node("MatMul", graph.reshape(graph.name(left), left.shape, flat), graph.constant(matrix))
        return Tensor(graph.reshape(name, (*flat[:-1], matrix.shape[1]), after), after)
    return Tensor(graph.node("Einsum", *map(graph.name, inputs), equation=_einsum(equation, inputs)), after)


def _einsum(equation: JaxprEqn, inputs: list[Value]) -> str:
    """Returns a `dot_general` as NumPy's einsum would have it: `abc,cd->abd`."""
    ((of_left, of_right), (batch_left, batch_right)) = equation.params["dimension_numbers"]
    letters = iter(string.ascii_lowercase)
    left = [next(letters) for _ in inputs[0].shape]
    right = [next(letters) for _ in inputs[1].shape]
    for axes in ((of_left, of_right), (batch_left, batch_right)):
        for i, j in zip(*axes, strict=True):
            right[j] = left[i]
    shared = [left[i] for i in batch_left]
    summed = {left[i] for i in of_left}
    free = [letter for letter in (*left, *right) if letter not in summed and letter not in shared]
    return f"{''.join(left)},{''.join(right)}->{''.join((*shared, *free))}"
