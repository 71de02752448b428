"""What batch norm computes of each channel over all pixels, as primitives: so that CPUs can have kernels for them.

Primitives rather than functions with a derivative of their own, which would lose forward mode: gradients of each of
the three are made of the others, to any order. Arrays are `[..., C]`, float32 or wider; what belongs to a channel is
`[C]`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and biased variance of each channel, in two passes: one loses digits beside a large mean."""
    mean, variance = moments_p.bind(x)
    return mean, variance


def scaled(x: jax.Array, centre: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    """Returns `(x - centre) * scale + offset`."""
    y: jax.Array = scaled_p.bind(x, centre, scale, offset)
    return y


def sums(dy: jax.Array, x: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sums over pixels of `dy` and of `dy * (x - centre)`: the gradients of `scaled`'s offset and scale."""
    alone, products = sums_p.bind(dy, x, centre)
    return alone, products


def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = x.mean(_pixels(x))
    return mean, jnp.square(x - mean).mean(_pixels(x))


def _scaled(x: jax.Array, centre: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    return (x - centre) * scale + offset


def _sums(dy: jax.Array, x: jax.Array, centre: jax.Array) -> tuple[jax.Array, jax.Array]:
    return dy.sum(_pixels(x)), (dy * (x - centre)).sum(_pixels(x))


def _pixels(x: jax.Array) -> range:
    return range(x.ndim - 1)


def _moments_jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    (x,), (dx,) = primals, tangents
    mean, variance = moments(x)
    alone, products = sums(dx, x, mean)
    count = x.size // x.shape[-1]
    return (mean, variance), (alone / count, 2 * products / count)


def _scaled_jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    x, centre, scale, _ = primals
    dx, *others = tangents
    y, dy = scaled(*primals), None
    if not all(type(tangent) is ad.Zero for tangent in others):
        d_centre, d_scale, d_offset = map(ad.instantiate_zeros, others)
        dy = scaled(x, centre, d_scale, d_offset - d_centre * scale)
    if type(dx) is not ad.Zero:
        dy = dx * scale if dy is None else dy + dx * scale
    return y, dx if dy is None else dy


def _scaled_transpose(dy: Any, x: Any, centre: Any, scale: Any, offset: Any) -> list[Any]:
    if type(dy) is ad.Zero:
        return [None] * 4
    alone, products = sums(dy, x, centre)
    wanted = [ad.is_undefined_primal(argument) for argument in (scale, offset)]
    return [None, None, products if wanted[0] else None, alone if wanted[1] else None]


def _sums_jvp(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    dy, x, centre = primals
    d_dy, d_x, d_centre = map(ad.instantiate_zeros, tangents)
    alone, products = sums(dy, x, centre)
    d_alone, d_products = sums(d_dy, x, centre)
    return (alone, products), (d_alone, d_products + (dy * d_x).sum(_pixels(x)) - alone * d_centre)


def _sums_transpose(cotangents: Sequence[Any], dy: Any, x: Any, centre: Any) -> list[Any]:
    del dy  # the one in which it is linear
    alone, products = map(ad.instantiate_zeros, cotangents)
    return [scaled(x, centre, products, alone), None, None]


def _primitive(name: str, meaning: Callable[..., Any], *, pair: bool) -> Primitive:
    """Returns a primitive that is computed, lowered and batched as what it means.

    Args:
        name: of the primitive.
        meaning: the same in JAX.
        pair: whether it gives two numbers of each channel, or an array like its first operand.
    """
    primitive = Primitive(f"channel_{name}")
    primitive.multiple_results = pair

    def abstract(first: Any, *_: Any) -> Any:
        a_channel = jax.core.ShapedArray(first.shape[-1:], first.dtype)
        return [a_channel] * 2 if pair else jax.core.ShapedArray(first.shape, first.dtype)

    def batch(arguments: Sequence[Any], axes: Sequence[Any]) -> tuple[Any, Any]:
        found = jax.vmap(meaning, in_axes=tuple(axes))(*arguments)
        return found, (0, 0) if pair else 0

    primitive.def_impl(lambda *arguments: meaning(*map(jnp.asarray, arguments)))  # outside of jit, NumPy's arrays too
    primitive.def_abstract_eval(abstract)
    # Where it were kept for equal calls, a rule would not see what its operands are made by.
    mlir.register_lowering(primitive, mlir.lower_fun(meaning, multiple_results=pair), cacheable=False)
    batching.primitive_batchers[primitive] = batch
    return primitive


moments_p = _primitive("moments", _moments, pair=True)
scaled_p = _primitive("scaled", _scaled, pair=False)
sums_p = _primitive("sums", _sums, pair=True)
ad.primitive_jvps.update({moments_p: _moments_jvp, scaled_p: _scaled_jvp, sums_p: _sums_jvp})
ad.primitive_transposes.update({scaled_p: _scaled_transpose, sums_p: _sums_transpose})
