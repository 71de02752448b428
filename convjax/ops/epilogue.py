"""Convolutions with their epilogues, as one operation: what is done at once to each number that they compute.

In evaluation a norm is a difference, a factor and an offset for each channel, after which a shortcut may be added and
a rectifier follows. Kernels on CPUs can do that to what they have just computed, before it is written; elsewhere the
operation is lowered as what it means, so that nothing changes. It has no derivative.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax._src import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Primitive, Var
from jax.interpreters import mlir

from convjax.ops import jaxprs
from convjax.ops.epilogue_search import Epilogue, Search, Step

P = ParamSpec("P")
R = TypeVar("R")


def with_epilogues(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function that computes the same, each convolution with what follows it as one operation.

    For functions of arrays that are compiled and not differentiated: logits in evaluation.
    """

    @functools.wraps(function)
    def computed(*args: P.args, **kwargs: P.kwargs) -> R:
        flat, tree = jax.tree.flatten((args, kwargs))

        def call(*flat: Any) -> R:
            args, kwargs = jax.tree.unflatten(tree, flat)
            return function(*args, **kwargs)

        nested, shape = jax.make_jaxpr(call, return_shape=True)(*flat)
        closed = jax.make_jaxpr(functools.partial(_inlined, nested.jaxpr, nested.consts))(*flat)
        result: R = jax.tree.unflatten(jax.tree.structure(shape), _evaluated(closed, flat))
        return result

    return computed


def _inlined(jaxpr: Jaxpr, consts: Sequence[Any], *arguments: Any) -> list[Any]:
    """Evaluates a jaxpr, and those that its equations do nothing but evaluate: traced, it is flat."""
    values = _given(jaxpr, consts, arguments)
    for equation in jaxpr.eqns:
        operands = [_value(values, atom) for atom in equation.invars]
        if inner := jaxprs.evaluated(equation):
            with _named(equation):
                found = _inlined(inner.jaxpr, inner.consts, *operands)
        else:
            found = _bound(equation, operands)
        values.update(zip(equation.outvars, found, strict=True))
    return [_value(values, atom) for atom in jaxpr.outvars]


def _evaluated(closed: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    """Evaluates a flat jaxpr, with epilogues where it has some: each where it ends, when all that it needs is there."""
    jaxpr = closed.jaxpr
    values, search = _given(jaxpr, closed.consts, arguments), Search(jaxpr)
    ends: dict[int, tuple[JaxprEqn, Epilogue]] = {}
    taken: set[int] = set()
    for place, equation in enumerate(jaxpr.eqns):
        if equation.primitive is lax.conv_general_dilated_p and (found := search.epilogue(equation, taken)):
            ends[found.places[-1]] = equation, found
            taken |= {place, *found.places}
    for place, equation in enumerate(jaxpr.eqns):
        if place in ends:
            convolution, epilogue = ends[place]
            operands = [_value(values, atom) for atom in convolution.invars]
            operands += [_wide(_value(values, atom)) for atom in epilogue.operands]
            params = tuple(sorted(convolution.params.items()))
            with _named(convolution):
                values[equation.outvars[0]] = followed_p.bind(*operands, params=params, steps=tuple(epilogue.steps))
        elif place not in taken:
            operands = [_value(values, atom) for atom in equation.invars]
            values.update(zip(equation.outvars, _bound(equation, operands), strict=True))
    return [_value(values, atom) for atom in jaxpr.outvars]


def _given(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> dict[Var, Any]:
    return dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))


def _value(values: dict[Var, Any], atom: Var | Literal) -> Any:
    return atom.val if isinstance(atom, Literal) else values[atom]


def _wide(operand: jax.Array) -> jax.Array:
    """Returns a channel's numbers in float32, as a bias of half precision is not; arrays of images as they are."""
    return operand.astype(jnp.float32) if operand.ndim == 1 else operand


def _bound(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    with _named(equation):
        found = equation.primitive.bind(*operands, **equation.primitive.get_bind_params(equation.params))
    return list(found) if equation.primitive.multiple_results else [found]


@contextlib.contextmanager
def _named(equation: JaxprEqn) -> Iterator[None]:
    """Lets what is traced inside have the module's name that an equation has, as profiles show it."""
    names = source_info_util.current_name_stack() + equation.source_info.name_stack
    with source_info_util.user_context(equation.source_info.traceback, name_stack=names), equation.ctx.manager:
        yield


def _meaning(x: jax.Array, kernel: jax.Array, *operands: jax.Array, params: Any, steps: tuple[Step, ...]) -> jax.Array:
    y = lax.conv_general_dilated_p.bind(x, kernel, **dict(params))
    dtype, following = y.dtype, iter(operands)
    for step in steps:
        if step is Step.ADD_ARRAY:
            y = y.astype(dtype) + next(following)
        elif step is Step.RECTIFY:
            y = jnp.maximum(y.astype(dtype), 0)
        elif step is Step.RECTIFY6:
            y = jnp.minimum(jnp.maximum(y.astype(dtype), 0), 6)
        elif step is Step.TANH:
            y = jnp.tanh(y.astype(dtype))
        else:
            apply = {Step.SUBTRACT: jnp.subtract, Step.MULTIPLY: jnp.multiply, Step.ADD: jnp.add}[step]
            y = apply(y.astype(jnp.float32), next(following))
    result: jax.Array = y.astype(dtype)
    return result


def _abstract(*avals: Any, **params: Any) -> Any:
    shape = jax.eval_shape(functools.partial(_meaning, **params), *avals)
    return jax.core.ShapedArray(shape.shape, shape.dtype)


followed_p = Primitive("convolution_with_epilogue")
followed_p.def_abstract_eval(_abstract)
followed_p.def_impl(_meaning)
mlir.register_lowering(followed_p, mlir.lower_fun(_meaning, multiple_results=False))
