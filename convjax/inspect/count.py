"""Counting a network's parameters and multiply-accumulates."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr


def parameters(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Returns the number of parameters of a model for images of (height, width, channels)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(_shapes(model, image)["params"]))


def multiply_accumulates(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Returns the multiply-accumulates of one image's way through a model in evaluation mode.

    Those of convolutions and matrix products, as published counts have it, read off the jaxpr: norms,
    activations and pooling do not count. Taps that fall on padding do.
    """
    variables = _shapes(model, image)

    def forward(variables: Any, images: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply(variables, images, train=False))

    return _count(jax.make_jaxpr(forward)(variables, jax.ShapeDtypeStruct((1, *image), jnp.float32)).jaxpr)


def _shapes(model: nn.Module, image: tuple[int, int, int]) -> Any:
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *image)), train=False))


def _count(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        shapes: list[tuple[int, ...]] = [getattr(v.aval, "shape", ()) for v in (*equation.outvars, *equation.invars)]
        if name == "conv_general_dilated":
            out, _, kernel = shapes
            # Each output value sums over the kernel's taps and its channels a group.
            total += math.prod(out) * math.prod(kernel) // kernel[equation.params["dimension_numbers"].rhs_spec[0]]
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            out, left, _ = shapes
            total += math.prod(out) * math.prod(left[axis] for axis in contracted)
        repeat = equation.params.get("length", 1) if name == "scan" else 1
        for value in equation.params.values():
            if isinstance(value, ClosedJaxpr):
                total += repeat * _count(value.jaxpr)
            elif isinstance(value, Jaxpr):
                total += repeat * _count(value)
    return total
