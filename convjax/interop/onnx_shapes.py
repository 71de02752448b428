"""Equations of a jaxpr that move values without computing with them, as nodes of ONNX."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn
from numpy.typing import NDArray

from convjax.interop.onnx_graph import Graph, Tensor, Unsupported, Value, is_static, shape_of, sizes, stored


def broadcast(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `broadcast_in_dim`: axes are put in their places, then stretched."""
    x, after = inputs[0], shape_of(equation.outvars[0])
    thin: list[Any] = [1] * len(after)
    for axis, place in enumerate(equation.params["broadcast_dimensions"]):
        thin[place] = x.shape[axis]
    name = graph.reshape(graph.name(x), x.shape, tuple(thin))
    if tuple(thin) == after:
        return Tensor(name, after)
    # ONNX's Expand leaves an axis as it is where 1 is asked for.
    wanted = [1 if now == then else then for now, then in zip(thin, after, strict=True)]
    if is_static(tuple(wanted)):
        return Tensor(graph.node("Expand", name, graph.indices(*wanted)), after)
    place = sizes(tuple(wanted)).index(-1)
    if str(wanted[place]) != "batch":
        raise Unsupported(f"to {wanted[place]} values")
    around = (wanted[:place], wanted[place + 1 :])
    before, behind = (graph.indices(*part) for part in around)
    return Tensor(graph.node("Expand", name, graph.node("Concat", before, graph.batch(), behind, axis=0)), after)


def reshape(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `reshape`, and what puts in or takes out axes of length 1."""
    x, after = inputs[0], shape_of(equation.outvars[0])
    return Tensor(graph.reshape(graph.name(x), x.shape, after), after)


def transpose(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `transpose`."""
    name = graph.node("Transpose", graph.name(inputs[0]), perm=equation.params["permutation"])
    return Tensor(name, shape_of(equation.outvars[0]))


def concatenate(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `concatenate`."""
    first = any(isinstance(value, Tensor) and value.channels_first for value in inputs)
    result = Tensor("", shape_of(equation.outvars[0]), first)
    names = [graph.name(value, channels_first=first) for value in inputs]
    name = graph.node("Concat", *names, axis=stored(result, equation.params["dimension"]))
    return dataclasses.replace(result, name=name)


def stack(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `stack`: a concatenation along a new axis."""
    axis = equation.params["axis"]
    names = [graph.node("Unsqueeze", graph.name(value), graph.indices(axis)) for value in inputs]
    return Tensor(
        names[0] if len(names) == 1 else graph.node("Concat", *names, axis=axis), shape_of(equation.outvars[0])
    )


def pad(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Value:
    """Writes `pad` with one constant number around."""
    x, value = inputs
    config = equation.params["padding_config"]
    if (
        not isinstance(x, Tensor)
        or isinstance(value, Tensor)
        or any(low < 0 or high < 0 or i for low, high, i in config)
    ):
        raise Unsupported("that cuts off or puts something in between")
    if not any(low or high for low, high, _ in config):
        return x
    padded = [axis for axis, (low, high, _) in enumerate(config) if low or high]
    pads = [int(config[axis][side]) for side in (0, 1) for axis in padded]
    axes = graph.indices(*(stored(x, axis) for axis in padded))
    name = graph.node("Pad", x.name, graph.indices(*pads), graph.constant(value), axes)
    return dataclasses.replace(x, name=name, shape=shape_of(equation.outvars[0]))


def split(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> list[Tensor]:
    """Writes `split`."""
    (x,) = inputs
    assert isinstance(x, Tensor)
    axis, parts = equation.params["axis"], [int(size) for size in equation.params["sizes"]]
    names = graph.nodes_output("Split", (x.name, graph.indices(*parts)), len(parts), axis=stored(x, axis))
    return [
        dataclasses.replace(x, name=name, shape=shape_of(variable))
        for name, variable in zip(names, equation.outvars, strict=True)
    ]


def slice_(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `slice`."""
    (x,) = inputs
    assert isinstance(x, Tensor)
    starts, stops = equation.params["start_indices"], equation.params["limit_indices"]
    steps = equation.params["strides"] or (1,) * len(starts)
    for axis, (start, stop, step) in enumerate(zip(starts, stops, steps, strict=True)):
        if (start, stop, step) != (0, x.shape[axis], 1):
            if not is_static((start, stop, x.shape[axis])):
                raise Unsupported("of the batch")
            x = graph.slice(x, axis, start, stop, step)
    return x


def reverse(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `rev`."""
    (x,) = inputs
    assert isinstance(x, Tensor)
    for axis in equation.params["dimensions"]:
        if not is_static((x.shape[axis],)):
            raise Unsupported("of the batch")
        x = graph.slice(x, axis, x.shape[axis] - 1, -1, -1)
    return x


def gather(graph: Graph, equation: JaxprEqn, inputs: list[Value]) -> Tensor:
    """Writes `gather` at constant positions that form a grid: what indexing with numbers and slices becomes.

    Each axis that is indexed is cut on its own: to a range, a single position, or the positions that stand along
    one axis of the indices.
    """
    x, indices = inputs
    if not isinstance(x, Tensor) or isinstance(indices, Tensor):
        raise Unsupported("at positions that depend on the images")
    numbers, lengths = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    if numbers.operand_batching_dims:
        raise Unsupported("at other positions for each image")
    after = shape_of(equation.outvars[0])
    left = {axis: ("offset", axis) for axis in range(len(x.shape)) if axis not in numbers.collapsed_slice_dims}
    for column, axis in enumerate(numbers.start_index_map):
        if not is_static((x.shape[axis],)):
            raise Unsupported("of the batch")
        positions = indices[..., column]
        if positions.size == 0 or positions.min() < 0 or positions.max() + lengths[axis] > x.shape[axis]:
            raise Unsupported("at positions outside of the array")
        if (positions == positions.flat[0]).all():
            start = int(positions.flat[0])
            x = graph.slice(x, axis, start, start + int(lengths[axis]))
        else:
            along, line = _line(positions)
            if axis in left:
                raise Unsupported("of several ranges")
            left[axis] = ("batch", along)
            x = _take(graph, x, axis, line)
    return _in_order(graph, x, left, numbers.offset_dims, after, indices.shape[:-1])


def _line(positions: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """Returns along which axis positions vary, and how."""
    varying = [i for i in range(positions.ndim) if (positions != positions.take([0], i)).any()]
    if len(varying) != 1:
        raise Unsupported("at positions that form no grid")
    return varying[0], np.moveaxis(positions, varying[0], 0).reshape(positions.shape[varying[0]], -1)[:, 0]


def _take(graph: Graph, x: Tensor, axis: int, positions: NDArray[Any]) -> Tensor:
    """Takes positions of an axis, at least two."""
    steps = set(np.diff(positions).tolist())
    if len(steps) == 1 and (step := steps.pop()):
        start = int(positions[0])
        return graph.slice(x, axis, start, int(positions[-1]) + (1 if step > 0 else -1), step)
    shape = (*x.shape[:axis], len(positions), *x.shape[axis + 1 :])
    name = graph.node("Gather", x.name, graph.indices(*positions), axis=stored(x, axis))
    return dataclasses.replace(x, name=name, shape=shape)


def _in_order(
    graph: Graph,
    x: Tensor,
    left: dict[int, tuple[str, int]],
    offsets: Sequence[int],
    after: tuple[Any, ...],
    grid: tuple[int, ...],
) -> Tensor:
    """Brings what a gather has left into the order of its output; single positions leave an axis of length 1."""
    kept = iter(sorted(axis for axis, (kind, _) in left.items() if kind == "offset"))
    along = iter(range(len(grid)))
    sources = {axis: source for source, (kind, axis) in left.items() if kind == "batch"}
    order = []
    for place in range(len(after)):
        if place in offsets:
            order.append(next(kept))
        elif (i := next(along)) in sources:
            order.append(sources[i])
        elif grid[i] != 1:
            raise Unsupported("of the same position many times")
    if order == list(range(len(x.shape))) and x.shape == after:
        return x
    name, single = graph.name(x), [axis for axis in range(len(x.shape)) if axis not in order]
    permutation = [*order, *single]
    if permutation != sorted(permutation) and order != sorted(order):
        name = graph.node("Transpose", name, perm=permutation)
        x = Tensor(name, tuple(x.shape[axis] for axis in permutation))
    return Tensor(graph.reshape(name, x.shape, after), after)
