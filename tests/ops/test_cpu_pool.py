"""The pooling kernels for CPUs compute what the definition says."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compiling import fresh, lowered, need_native, require_stocks_integers
from hypothesis import given, settings
from jax import lax
from reference import Geometry, integers

from convjax import ops
from convjax.ops import cpu


@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=reference.poolings())
@pytest.mark.parametrize("kind", ["pure", "native"])
def test_max_pool_and_its_gradient_are_those_of_the_definition(
    kind: cpu.Kernels, case: tuple[Geometry, tuple[int, ...]]
) -> None:
    if kind == "native":
        need_native()
    g, shape = case
    # Few values, so that many maxima are equal.
    x, dy = np.clip(integers(1, *shape), -1, 1), integers(2, shape[0], *g.output, shape[3])

    def value_and_gradient(x: jax.Array, dy: jax.Array) -> Any:
        y, backward = jax.vjp(lambda x: ops.max_pool(x, g.window, stride=g.stride, padding=g.padding), x)
        return y, *backward(dy)

    expected_y, expected_dx = reference.max_pool(x, dy, g)
    with cpu.switched_on(kind):
        text = lowered(value_and_gradient, x, dy)
        y, dx = fresh(value_and_gradient, x, dy)
    assert "select_and_scatter" not in text
    assert ("reduce_window" in text) == (g.strides == (1, 1))
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(dx, expected_dx)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(case=reference.poolings())
@pytest.mark.parametrize("kind", ["pure", "native"])
def test_transformations_of_pooling_give_stocks_integers(
    kind: cpu.Kernels, case: tuple[Geometry, tuple[int, ...]]
) -> None:
    g, shape = case
    # No two numbers are equal: which of equal maxima is meant is not the same to all transformations of stock XLA.
    x = np.random.default_rng(1).permutation(np.prod(shape)).reshape(shape).astype(np.float32)
    w = integers(2, shape[0], *g.output, shape[3]).clip(-1, 1)

    def loss(x: jax.Array) -> jax.Array:
        largest = ops.max_pool(x, g.window, stride=g.stride, padding=g.padding)
        return jnp.vdot(w, largest**2 + window_sums(x, g))  # 200 outputs at the most, of at most 196^2 + 16 * 196

    gradient = jax.grad(loss)

    def every(x: jax.Array) -> Any:
        forward = jax.jvp(loss, (x,), (x[::-1],))
        product = jax.jvp(gradient, (x,), (x[::-1],))[1]
        mapped = jax.vmap(gradient)(jnp.stack([x, x[::-1]]))
        again = jax.grad(jax.checkpoint(loss))(x)
        return forward, product, mapped, again, lax.scan(lambda x, _: (-x, gradient(x)), x, length=2)

    require_stocks_integers(kind, every, x)


def window_sums(x: jax.Array, g: Geometry, dilation: int = 1) -> jax.Array:
    edges, ones = ((0, 0), *g.pads, (0, 0)), (1, 1, 1, 1)
    dilations = (1, dilation, dilation, 1)
    zero = np.zeros((), x.dtype)
    return lax.reduce_window(x, zero, lax.add, (1, *g.window, 1), (1, *g.strides, 1), edges, ones, dilations)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=reference.poolings())
def test_sums_of_windows_and_their_gradient_are_those_of_the_definition(case: tuple[Geometry, tuple[int, ...]]) -> None:
    g, shape = case
    x, dy = integers(1, *shape), integers(2, shape[0], *g.output, shape[3])

    def value_and_gradient(x: jax.Array, dy: jax.Array) -> Any:
        y, backward = jax.vjp(lambda x: window_sums(x, g), x)
        return y, *backward(dy)

    with cpu.switched_on("pure"):
        y, dx = fresh(value_and_gradient, x, dy)
        half = fresh(value_and_gradient, jnp.asarray(x, jnp.bfloat16), jnp.asarray(dy, jnp.bfloat16))
        assert "reduce_window" not in lowered(lambda x: window_sums(x, g), jnp.asarray(x, jnp.bfloat16))
    # Sums of at most 16 integers up to 4 have no more than the 8 bits of bfloat16.
    for narrow, whole in zip(half, (y, dx), strict=True):
        np.testing.assert_array_equal(narrow.astype(np.float32), whole)
    size = g.window[0] * g.window[1]
    # Means times their count; integers, up to the reference's own rounding.
    for ours, mean in zip((y, dx), reference.avg_pool(x, dy, g, count_padding=True), strict=True):
        np.testing.assert_array_equal(ours, np.rint(mean * size))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["pure", "native"])
def test_max_pools_gradient_in_half_precision_is_that_of_float32_rounded_once(kind: cpu.Kernels, dtype: str) -> None:
    if kind == "native":
        need_native()
    x, dy = integers(1, 2, 9, 9, 33), 1 + integers(2, 2, 5, 5, 33) / 128

    def gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda x: ops.max_pool(x, 3, stride=2, padding=1), x)[1](dy)[0]

    with cpu.switched_on(kind):
        half = fresh(gradient, *(jnp.asarray(a, dtype) for a in (x, dy)))
        whole = fresh(gradient, x, dy.astype(np.float32))
    assert half.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(half, whole.astype(half.dtype))


def test_max_pools_gradient_computes_once_what_it_is_given() -> None:
    x, w = integers(1, 2, 9, 9, 3), integers(2, 2, 5, 5, 3)

    def gradient(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.vdot(ops.max_pool(x, 3, stride=2, padding=1), jnp.tanh(w)))(x)

    need_native()
    with cpu.switched_on("native"):
        text = str(jax.jit(gradient).lower(x, w).compile().as_text())
    (fusion,) = (computation for computation in text.split("\n\n") if " tanh(" in computation)
    assert " select(" not in fusion  # which would compute it for each of the nine taps


def test_sums_of_windows_of_bfloat16_round_once() -> None:
    x = jnp.full((1, 5, 5, 1), 1 + 2**-7, jnp.bfloat16)
    with cpu.switched_on("pure"):
        (total,) = fresh(lambda x: window_sums(x, Geometry((5, 5), (5, 5), 1, "VALID")), x).reshape(-1)
    assert total == jnp.bfloat16(25 * (1 + 2**-7))


def test_pooling_that_kernels_do_not_know_goes_by_stock() -> None:
    x = integers(1, 1, 9, 9, 2)
    with cpu.switched_on("pure"):
        for f, given_ in (
            (lambda x: window_sums(x, Geometry((9, 9), (2, 2), 1, "VALID"), dilation=2), x),
            (lambda x: window_sums(x, Geometry((9, 9), (6, 6), 1, "VALID")), x),
            (lambda x: ops.max_pool(x, 2), x.astype(np.int32)),
            (jax.vmap(lambda x: ops.max_pool(x, 2)), x[None]),
        ):
            assert "reduce_window" in lowered(f, given_)
