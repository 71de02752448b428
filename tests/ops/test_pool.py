from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Geometry, integers

from convjax import ops

Pool = Callable[[jax.Array], jax.Array]


def value_and_gradient(pool: Pool, x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    @jax.jit
    def run(x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, backward = jax.vjp(pool, x)
        return y, *backward(dy)

    return run(x, dy)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(reference.poolings())
def test_max_pool_and_its_gradient_are_those_of_the_definition(case: tuple[Geometry, tuple[int, ...]]) -> None:
    g, shape = case
    # Nine values only: most windows have ties, and the definition's gradient goes to the first of them.
    x, dy = integers(1, *shape), integers(2, shape[0], *g.output, shape[3])
    y, dx = value_and_gradient(lambda x: ops.max_pool(x, g.window, stride=g.stride, padding=g.padding), x, dy)
    expected_y, expected_dx = reference.max_pool(x, dy, g)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(dx, expected_dx)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(reference.poolings(), st.booleans())
def test_avg_pool_and_its_gradient_are_those_of_the_definition(
    case: tuple[Geometry, tuple[int, ...]], count_padding: bool
) -> None:
    g, shape = case
    x, dy = integers(1, *shape), integers(2, shape[0], *g.output, shape[3])

    def pool(x: jax.Array) -> jax.Array:
        return ops.avg_pool(x, g.window, stride=g.stride, padding=g.padding, count_padding=count_padding)

    y, dx = value_and_gradient(pool, x, dy)
    expected_y, expected_dx = reference.avg_pool(x, dy, g, count_padding)
    # Exact sums, then one division, or two roundings of a reciprocal and a product: two ulps of values up to 4.
    np.testing.assert_allclose(y, expected_y, rtol=0, atol=4 * 2.0**-22)
    # At most 16 windows of quotients up to 4 are added: 16 roundings of at most 64 * 2^-24.
    np.testing.assert_allclose(dx, expected_dx, rtol=0, atol=16 * 64 * 2.0**-24)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)))
def test_global_avg_pool_is_the_mean_over_all_pixels_and_shares_its_gradient_evenly(
    shape: tuple[int, int, int, int],
) -> None:
    n, height, width, channels = shape
    x, dy = integers(1, *shape), integers(2, n, channels)
    y, dx = value_and_gradient(ops.global_avg_pool, x, dy)
    expected = [[sum(x[i, a, b, c] for a, b in np.ndindex(height, width)) for c in range(channels)] for i in range(n)]
    # Exact sums, then one division, or two roundings of a reciprocal and a product.
    np.testing.assert_allclose(y, np.array(expected) / (height * width), rtol=2.4e-7, atol=0)
    np.testing.assert_allclose(dx, np.broadcast_to(dy[:, None, None] / (height * width), shape), rtol=2.4e-7, atol=0)


def test_max_pool_gradient_goes_to_the_first_maximum() -> None:
    x = jnp.array([[0.0, 7.0, 0.0], [7.0, 7.0, 7.0], [7.0, 0.0, 7.0]])[None, :, :, None]
    gradient = jax.grad(lambda x: ops.max_pool(x, 3).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool])
def test_pools_keep_the_dtype_and_have_a_gradient_in_it(pool: Callable[..., jax.Array], dtype: str) -> None:
    x = jnp.asarray(integers(1, 1, 4, 4, 2), dtype)
    y, dx = value_and_gradient(lambda x: pool(x, 2), x, jnp.ones((1, 2, 2, 2), dtype))
    assert y.dtype == dx.dtype == x.dtype
    # Each window hands on its gradient of one, whole or in quarters: exact in bfloat16 too.
    np.testing.assert_array_equal(np.asarray(dx, np.float32).sum((1, 2)), [[4, 4]])


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8"])
def test_max_pool_of_integers_is_of_the_same_integers(dtype: str) -> None:
    least = np.iinfo(dtype).min
    x = (np.arange(16).reshape(1, 4, 4, 1) + least).astype(dtype)
    y = ops.max_pool(jnp.asarray(x), 2)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[0, :, :, 0], np.array([[5, 7], [13, 15]]) + least)


def test_max_pool_never_takes_the_padding_for_a_maximum() -> None:
    np.testing.assert_array_equal(ops.max_pool(jnp.full((1, 2, 2, 1), -5.0), 3, stride=1, padding=1), -5.0)


def test_avg_pool_at_a_corner_counts_four_of_nine_pixels_or_all_nine() -> None:
    # A 3x3 window with padding 1 on all-ones: 4 pixels lie inside at a corner, 6 at an edge, 9 in the middle.
    x = jnp.ones((1, 3, 3, 1))
    ninths = ops.avg_pool(x, 3, stride=1, padding=1)[0, :, :, 0] * 9
    # A mean of ones and zeros, then times nine: two roundings of half an ulp each.
    np.testing.assert_allclose(ninths, [[4, 6, 4], [6, 9, 6], [4, 6, 4]], rtol=2.4e-7)
    np.testing.assert_array_equal(ops.avg_pool(x, 3, stride=1, padding=1, count_padding=False), 1.0)


def test_avg_pool_keeps_the_sum_where_windows_tile_the_image() -> None:
    x = integers(1, 2, 6, 4, 3)
    # Windows of 6 pixels: quotients by 6, each rounded to half an ulp of at most 4, eight of them summed.
    np.testing.assert_allclose(6 * ops.avg_pool(x, (3, 2)).sum((1, 2)), x.sum((1, 2)), atol=6 * 8 * 4 * 2.0**-24)


def test_pool_stride_is_the_window_unless_given() -> None:
    x = integers(1, 1, 6, 6, 1)
    for pool in (ops.max_pool, ops.avg_pool):
        np.testing.assert_array_equal(pool(x, (2, 3)), pool(x, (2, 3), stride=(2, 3)))
        assert pool(x, (2, 3)).shape == (1, 3, 2, 1)


@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool])
@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((5, 5, 1), {}, r"pooling takes images \[N, H, W, C\], not an array of shape \(5, 5, 1\)"),
        ((1, 5, 5, 1), {"window": 0}, "window is 0"),
        ((1, 5, 5, 1), {"stride": 0}, "stride is 0"),
        ((1, 5, 5, 1), {"padding": -1}, "padding is -1"),
        ((1, 5, 5, 1), {"padding": "same"}, "padding is 'same'"),
        ((1, 5, 5, 1), {"padding": (1, 2, 3)}, r"padding is \(1, 2, 3\)"),
        ((1, 5, 5, 1), {"padding": 2}, r"padding \(2, 2\) is not smaller than the window \(2\)"),
        ((1, 5, 5, 1), {"padding": ((0, 0), (0, 2))}, r"padding \(0, 2\) is not smaller than the window \(2\)"),
        ((1, 5, 5, 1), {"window": 6}, r"a window spanning 6 pixels does not fit into 5"),
    ],
)
def test_pools_refuse_empty_windows_and_empty_outputs(
    pool: Callable[..., jax.Array], shape: tuple[int, ...], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pool(jnp.zeros(shape), **({"window": 2} | arguments))


def test_avg_pool_refuses_integers_which_would_overflow() -> None:
    with pytest.raises(ValueError, match="avg_pool takes floating-point images, not uint8"):
        ops.avg_pool(jnp.full((1, 2, 2, 1), 200, jnp.uint8), 2)


def test_global_avg_pool_refuses_what_is_no_batch_of_images() -> None:
    with pytest.raises(ValueError, match=r"global_avg_pool takes images .* not an array of shape \(5, 5\)"):
        ops.global_avg_pool(jnp.zeros((5, 5)))


@pytest.mark.parametrize("output", [1, 2, (3, 7), (6, 7), (9, 14)])
def test_adaptive_avg_pool_takes_the_means_of_pytorchs_windows(output: int | tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 7, 3), np.float32)
    rows, columns = output if isinstance(output, tuple) else (output, output)
    expected = np.empty((2, rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            window = x[:, i * 6 // rows : -(-(i + 1) * 6 // rows), j * 7 // columns : -(-(j + 1) * 7 // columns)]
            expected[:, i, j] = window.astype(np.float64).mean((1, 2))
    # Sums of at most 42 values of order one.
    np.testing.assert_allclose(ops.adaptive_avg_pool(jnp.asarray(x), output), expected, atol=1e-6)


def test_adaptive_avg_pool_to_the_same_size_changes_nothing() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 7, 7, 2), np.float32))
    assert ops.adaptive_avg_pool(x, 7) is x
