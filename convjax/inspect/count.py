"""Counting a network's parameters and multiply-accumulates."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

_COMBINING = ("reduce", "scatter", "select_and_scatter")
"""Beginnings of the names of operations whose jaxpr tells how two numbers are combined: that is no call."""


def parameters(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Returns the number of parameters of a model for images of (height, width, channels)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes(model, image).get("params", {})))


def multiply_accumulates(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Returns the multiply-accumulates of one image's way through a model in evaluation mode.

    Those of convolutions and matrix products, as published counts have it, read off the jaxpr: norms,
    activations and pooling do not count. Taps that fall on padding do, those that fall on the zeros between the
    pixels of a transposed convolution do not.
    """
    jaxpr = jax.make_jaxpr(forward(model))(shapes(model, image), jax.ShapeDtypeStruct((1, *image), jnp.float32)).jaxpr
    return sum(times * products(equation) for equation, times, _ in equations(jaxpr))


def shapes(model: nn.Module, image: tuple[int, int, int]) -> Any:
    """Returns shapes and dtypes of a model's variables, without computing anything."""
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, *image)), train=False))


def forward(model: nn.Module) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns the function of variables and images that a model is in evaluation mode."""
    return lambda variables, images: jnp.asarray(model.apply(variables, images, train=False))


def equations(jaxpr: Jaxpr, times: int = 1, outer: str = "") -> Iterator[tuple[JaxprEqn, int, str]]:
    """Goes through the equations of a jaxpr that call no other jaxpr, in their order.

    Yields:
        An equation; how often it runs; and the names of the scopes around it, as `ResNet/stem/conv`. The body of a
        scan runs as often as it is long, that of a while loop is taken to run once, and of several branches that
        with the most products is taken to run.
    """
    for equation in jaxpr.eqns:
        scope = f"{outer}/{equation.source_info.name_stack}"
        inner = list(called(equation))
        if not inner:
            yield equation, times, scope
        for jaxpr in inner:
            yield from equations(jaxpr, times * repeats(equation), scope)


def repeats(equation: JaxprEqn) -> int:
    """Returns how often an equation runs the jaxprs that it calls: the length of a scan, else 1."""
    return int(equation.params["length"]) if equation.primitive.name == "scan" else 1


def called(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """Goes through the jaxprs that an equation calls; of several branches that with the most products."""
    if equation.primitive.name.startswith(_COMBINING):
        return
    for value in equation.params.values():
        choices = value if isinstance(value, tuple) else (value,)
        found = [x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in choices if isinstance(x, ClosedJaxpr | Jaxpr)]
        if found:
            yield max(found, key=lambda jaxpr: sum(times * products(e) for e, times, _ in equations(jaxpr)))


def products(equation: JaxprEqn) -> int:
    """Returns the multiply-accumulates of one convolution or matrix product, 0 for other equations."""
    sizes: list[tuple[int, ...]] = [getattr(v.aval, "shape", ()) for v in (*equation.outvars, *equation.invars)]
    if equation.primitive.name == "conv_general_dilated":
        out, images, kernel = sizes
        numbers, spread = equation.params["dimension_numbers"], equation.params["lhs_dilation"]
        # Each output value sums over the kernel's taps and its channels a group.
        per_output = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        # Where pixels are spread out by zeros, each of them meets each tap: what meets the zeros is no work.
        pairs = zip(numbers.out_spec[2:], numbers.lhs_spec[2:], spread, strict=True)
        pixels = [images[right] if apart > 1 else out[left] for left, right, apart in pairs]
        return out[numbers.out_spec[0]] * out[numbers.out_spec[1]] * math.prod(pixels) * per_output
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        out, left, _ = sizes
        return math.prod(out) * math.prod(left[axis] for axis in contracted)
    return 0
