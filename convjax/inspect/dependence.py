"""Which indices of an image each number of a computation depends on, by propagation through its jaxpr.

Every array carries, for each of its numbers, the first and the last index along one axis of the image that the number
depends on: as `[2, *shape]` of minus the first and of the last, so that the union of dependences is a maximum.
What depends on no pixel is None.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from numpy.typing import NDArray

Reach: TypeAlias = NDArray[np.int32] | None
"""int32 `[2, *shape]`, or None."""

_NOTHING = np.iinfo(np.int32).min
"""The reach of a number among others that depends on no pixel, as padding."""

_NAMES = """
abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp conj convert_element_type copy cos cosh
div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max
min mul name ne neg nextafter not optimization_barrier or population_count pow real reduce_precision rem round rsqrt
select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor
"""
_ELEMENTWISE = frozenset(_NAMES.split())
_REDUCTIONS = {"argmax", "argmin", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod", "reduce_sum"}
_WINDOWS = {"reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum"}
_CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
"""Under what name an equation keeps the jaxpr that it calls, once, with its own arguments."""


def reaches(jaxpr: ClosedJaxpr, axis: int) -> NDArray[np.int32]:
    """Returns what the output of a jaxpr depends on, `[2, *shape]`; of its inputs the last alone is the image.

    Args:
        jaxpr: of one output.
        axis: of the image, along which indices are told.
    """
    *others, image = [v.aval.shape for v in jaxpr.jaxpr.invars]
    index = np.arange(image[axis], dtype=np.int32).reshape([-1 if i == axis else 1 for i in range(len(image))])
    pixels = np.stack([np.broadcast_to(-index, image), np.broadcast_to(index, image)])
    (found,) = _through(jaxpr.jaxpr, [*[None] * len(others), pixels])
    (output,) = jaxpr.out_avals
    return np.full((2, *output.shape), _NOTHING, np.int32) if found is None else found


def _through(jaxpr: Jaxpr, inputs: Sequence[Reach]) -> list[Reach]:
    known: dict[Any, Reach] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(variable: Any) -> Reach:
        return None if isinstance(variable, Literal) else known.get(variable)

    for equation in jaxpr.eqns:
        if all(isinstance(v, Literal) or v in known for v in jaxpr.outvars):
            break  # what the network does after the layer that was asked for
        given = [read(v) for v in equation.invars]
        nothing = all(reach is None for reach in given)
        found = [None] * len(equation.outvars) if nothing else _outputs(equation, given)
        known |= dict(zip(equation.outvars, found, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _outputs(equation: JaxprEqn, given: list[Reach]) -> list[Reach]:
    """Returns the reaches of an equation's outputs."""
    name, params = equation.primitive.name, equation.params
    if name == "scan":
        return _scan(equation, given)
    if name == "cond":
        branches = [_through(branch.jaxpr, given[1:]) for branch in params["branches"]]
        choice = [None if given[0] is None else _everything(given[:1], v) for v in equation.outvars]
        return [_union(each) for each in zip(choice, *branches, strict=True)]
    for called in (params[key] for key in _CALLS if key in params):
        inner = called.jaxpr if isinstance(called, ClosedJaxpr) else called
        if isinstance(inner, Jaxpr) and len(inner.invars) == len(given):
            return _through(inner, given)
    if name in _ELEMENTWISE:
        return [_spread(_union(given), v) for v in equation.outvars]
    if name in _MOVES and given[0] is not None:
        return [_MOVES[name](given[0], params)]
    if name == "concatenate":
        filled = [_filled(reach, v) for reach, v in zip(given, equation.invars, strict=True)]
        return [np.concatenate(filled, axis=params["dimension"] + 1)]
    if name == "stack":
        filled = [_filled(reach, v) for reach, v in zip(given, equation.invars, strict=True)]
        return [np.stack(filled, axis=params["axis"] + 1)]
    if name == "dot_general":
        return [_dot(given, equation)]
    if name == "conv_general_dilated" and given[1] is None and params["batch_group_count"] == 1:
        return [_convolution(given[0], equation)]
    return [_everything(given, v) for v in equation.outvars]


def _scan(equation: JaxprEqn, given: list[Reach]) -> list[Reach]:
    params = equation.params
    consts, carries, length = params["num_consts"], params["num_carry"], params["length"]
    constants, carry, xs = given[:consts], given[consts : consts + carries], given[consts + carries :]
    steps = []
    for i in reversed(range(length)) if params["reverse"] else range(length):
        out = _through(params["jaxpr"].jaxpr, [*constants, *carry, *(None if x is None else x[:, i] for x in xs)])
        carry = out[:carries]
        steps.append(out[carries:])
    if params["reverse"]:
        steps.reverse()
    inner = params["jaxpr"].jaxpr.outvars[carries:]
    ys = [
        np.stack([_filled(y, v) for y in each], axis=1) for v, each in zip(inner, zip(*steps, strict=True), strict=True)
    ]
    return [*carry, *ys]


def _shape(variable: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def _union(reaches: Sequence[Reach]) -> Reach:
    """Returns what any of several arrays, equal in shape or scalars, depends on."""
    some = [reach for reach in reaches if reach is not None]
    ndim = max((reach.ndim for reach in some), default=0)
    wide = [reach.reshape(2, *[1] * (ndim - reach.ndim), *reach.shape[1:]) for reach in some]
    return functools.reduce(np.maximum, wide) if wide else None


def _spread(reach: Reach, variable: Any) -> NDArray[np.int32]:
    """Returns what is known of an array by its numbers' places, where axes of length 1 stand for all of an axis."""
    assert reach is not None, "an equation without any known input is not asked"
    return np.broadcast_to(reach, (2, *variable.aval.shape))


def _filled(reach: Reach, variable: Any) -> NDArray[np.int32]:
    return np.full((2, *variable.aval.shape), _NOTHING, np.int32) if reach is None else reach


def _everything(given: Sequence[Reach], variable: Any) -> NDArray[np.int32]:
    """Returns the reach of an output of which no more is known than that it may depend on all that went in."""
    each = [reach.reshape(2, -1).max(axis=1) for reach in given if reach is not None and reach.size]
    whole = np.max(each, axis=0)
    return _spread(whole.reshape(2, *[1] * variable.aval.ndim), variable)


def _dot(given: list[Reach], equation: JaxprEqn) -> NDArray[np.int32]:
    """Unites over the contracted axes: batch axes, the left's own and the right's own are left."""
    contracted, batched = equation.params["dimension_numbers"]
    ndims = [len(_shape(v)) for v in equation.invars]
    free = [n - len(c) - len(b) for n, c, b in zip(ndims, contracted, batched, strict=True)]
    parts = []
    for side, reach in enumerate(given):
        if reach is None:
            continue
        taken = (*batched[side], *contracted[side])
        own = [axis for axis in range(ndims[side]) if axis not in taken]
        ordered = reach.transpose(0, *(a + 1 for a in (*batched[side], *own, *contracted[side])))
        kept = ordered.reshape(*ordered.shape[: 1 + len(batched[side]) + len(own)], -1).max(axis=-1)
        batch, rest = kept.shape[1 : 1 + len(batched[side])], kept.shape[1 + len(batched[side]) :]
        shape = (*rest, *[1] * free[1]) if side == 0 else (*[1] * free[0], *rest)
        parts.append(kept.reshape(2, *batch, *shape))
    return _spread(_union(parts), equation.outvars[0])


def _convolution(reach: Reach, equation: JaxprEqn) -> NDArray[np.int32]:
    """Unites over the channels of each group, then over the taps of the kernel."""
    assert reach is not None
    params = equation.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    last = reach.transpose(0, *(axis + 1 for axis in (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])))
    grouped = last.reshape(*last.shape[:-1], groups, -1).max(axis=-1)
    kernel = _shape(equation.invars[1])
    windows = _windows(
        grouped,
        (1, *(kernel[axis] for axis in numbers.rhs_spec[2:]), 1),
        (1, *params["window_strides"], 1),
        ((0, 0), *params["padding"], (0, 0)),
        (1, *params["lhs_dilation"], 1),
        (1, *params["rhs_dilation"], 1),
    )
    output = _shape(equation.outvars[0])
    out_spec = numbers.out_spec
    spread = np.repeat(windows, output[out_spec[1]] // groups, axis=-1)
    order = np.argsort([out_spec[0], *out_spec[2:], out_spec[1]])
    return spread.transpose(0, *(order + 1))


def _windows(
    reach: NDArray[np.int32],
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    dilation: Sequence[int],
) -> NDArray[np.int32]:
    """Unites over windows, whose numbers are given for each axis."""
    config = [(low, high, d - 1) for (low, high), d in zip(padding, base_dilation, strict=True)]
    padded = _pad(reach, config)
    for axis, (size, stride, step) in enumerate(zip(window, strides, dilation, strict=True), start=1):
        count = (padded.shape[axis] - (size - 1) * step - 1) // stride + 1
        taps = [np.arange(count) * stride + tap * step for tap in range(size)]
        padded = functools.reduce(np.maximum, (padded.take(tap, axis=axis) for tap in taps))
    return padded


def _pad(reach: NDArray[np.int32], config: Sequence[tuple[int, int, int]]) -> NDArray[np.int32]:
    """Pads before, after and between the numbers of each axis; negative numbers cut off."""
    for axis, (low, high, between) in enumerate(config, start=1):
        length = reach.shape[axis]
        full = low + high + length + max(length - 1, 0) * between
        if (low, high, between) == (0, 0, 0):
            continue
        shape = list(reach.shape)
        shape[axis] = full
        padded = np.full(shape, _NOTHING, np.int32)
        places = low + np.arange(length) * (between + 1)
        inside = (places >= 0) & (places < full)
        where = [slice(None)] * reach.ndim
        where[axis] = places[inside]
        padded[tuple(where)] = reach.compress(inside, axis=axis)
        reach = padded
    return reach


def _broadcast(reach: NDArray[np.int32], params: dict[str, Any]) -> NDArray[np.int32]:
    shape = [1] * len(params["shape"])
    for axis, length in zip(params["broadcast_dimensions"], reach.shape[1:], strict=True):
        shape[axis] = length
    return np.broadcast_to(reach.reshape(2, *shape), (2, *params["shape"]))


def _slice(reach: NDArray[np.int32], params: dict[str, Any]) -> NDArray[np.int32]:
    strides = params["strides"] or [1] * (reach.ndim - 1)
    parts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return reach[(slice(None), *(slice(*part) for part in parts))]


def _axes(axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(axis + 1 for axis in axes)


_MOVES: dict[str, Callable[[NDArray[np.int32], dict[str, Any]], NDArray[np.int32]]] = {
    "broadcast_in_dim": _broadcast,
    "pad": lambda reach, params: _pad(reach, params["padding_config"]),
    "reshape": lambda reach, params: reach.reshape(2, *params["new_sizes"]),
    "rev": lambda reach, params: np.flip(reach, _axes(params["dimensions"])),
    "slice": _slice,
    "squeeze": lambda reach, params: reach.squeeze(_axes(params["dimensions"])),
    "transpose": lambda reach, params: reach.transpose(0, *_axes(params["permutation"])),
    **dict.fromkeys(_REDUCTIONS, lambda reach, params: reach.max(axis=_axes(params["axes"]))),
    **dict.fromkeys(
        _WINDOWS,
        lambda reach, params: _windows(
            reach,
            params["window_dimensions"],
            params["window_strides"],
            params["padding"],
            params["base_dilation"],
            params["window_dilation"],
        ),
    ),
}
"""What moves or unites the numbers of its first argument alone."""
