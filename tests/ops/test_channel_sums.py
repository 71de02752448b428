"""Sums of channels against the definition in float64, by stock XLA and by the native kernels."""

import ctypes
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import fresh, lowered, need_native
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.ops import channels, cpu

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 16, 40, 130, 300]))
SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
LARGE = (2, 33, 64, 24)  # more than one part of channels.cc, and no multiple of one


@pytest.fixture(params=["off", "native"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each kind of kernels, for arrays of any size."""
    if request.param == "native":
        need_native()
    monkeypatch.setattr(cpu, "_FEW", 0)
    with cpu.switched_on(request.param):
        yield request.param


def calls(f: Callable[..., Any], *arguments: Any) -> list[tuple[str, str]]:
    """Returns the native kernels that a function calls, with the types of their first operands."""
    return re.findall(r"@(convjax_\w+)\(.*?: \(tensor<[\dx]*x(\w+)>", lowered(f, *arguments))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(shape=SHAPES, seed=st.integers(0, 9))
def test_moments_keep_their_digits_beside_a_large_mean(dtype: str, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(256, 3, shape), dtype)
    mean, variance = fresh(lambda x: channels.moments(x.astype(jnp.float32)), x)
    exact = np.asarray(x, np.float64).reshape(-1, shape[-1])
    # Up to 8,000 numbers are added up, by XLA in float32 all the way: 1.1e-6 was seen.
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-5)
    # As E[x^2] - E[x]^2 it would miss by 4e-4 at the least.
    np.testing.assert_allclose(variance, exact.var(0), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(shape=SHAPES, seed=st.integers(0, 9))
def test_sums_of_integers_are_exact(dtype: str, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    dy, x = (rng.integers(-9, 10, shape) for _ in range(2))
    centre = rng.integers(-9, 10, shape[-1])

    def wide(dy: jax.Array, x: jax.Array, centre: jax.Array) -> Any:
        return channels.sums(dy.astype(jnp.float32), x.astype(jnp.float32), centre)

    alone, products = fresh(wide, jnp.asarray(dy, dtype), jnp.asarray(x, dtype), jnp.asarray(centre, jnp.float32))
    np.testing.assert_array_equal(alone, dy.sum((0, 1, 2)))
    np.testing.assert_array_equal(products, (dy * (x - centre)).sum((0, 1, 2)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", [LARGE, (5, 7, 3, 130), (3, 2, 2, 2)])
def test_gradients_of_biases_are_exact_sums(shape: tuple[int, ...], dtype: str) -> None:
    dy = np.random.default_rng(0).integers(-9, 10, shape)

    def gradient(bias: jax.Array, dy: jax.Array) -> jax.Array:
        return jax.vjp(lambda bias: jnp.zeros_like(dy) + bias, bias)[1](dy)[0]

    given = jnp.zeros(shape[-1:], dtype), jnp.asarray(dy, dtype)
    found, exact = fresh(gradient, *given), dy.sum((0, 1, 2)).astype(jnp.dtype(dtype))
    taken = cpu.active() == "native" and dtype != "float16"
    if taken or dtype == "float32":
        np.testing.assert_array_equal(found, exact)
    # A second sum is that of one number, which JAX takes of what it has broadcast.
    assert calls(gradient, *given)[:1] == ([("convjax_totals", SHORT[dtype])] if taken else [])


def normalised(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    mean, variance = channels.moments(x)
    return channels.scaled(x, mean, scale * jax.lax.rsqrt(variance + 1e-3), offset)


def plain(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * scale * jax.lax.rsqrt(variance + 1e-3) + offset


def transformed(norm: Callable[..., jax.Array]) -> dict[str, Callable[..., Any]]:
    """Returns what is computed from x, scale, offset, and a direction of x."""

    def loss(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
        return jnp.sum(norm(x, scale, offset) ** 3 / (1 + x**2))

    def slope(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.grad(loss)(x, scale, offset)

    def repeated(x: jax.Array, scale: jax.Array, offset: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.scan(lambda h, _: (norm(h, scale, offset), None), x, length=2)[0] ** 3)

    return {
        "value": lambda x, s, b, v: norm(x, s, b),
        "gradients": lambda x, s, b, v: jax.grad(loss, (0, 1, 2))(x, s, b),
        "gradient of the offset alone": lambda x, s, b, v: jax.grad(loss, 2)(x, s, b),
        "gradient of the scale alone": lambda x, s, b, v: jax.grad(loss, 1)(x, s, b),
        "forward mode": lambda x, s, b, v: jax.jvp(lambda x, s: loss(x, s, b), (x, s), (v, s))[1],
        "forward over reverse": lambda x, s, b, v: jax.jvp(lambda x: slope(x, s, b), (x,), (v,))[1],
        "reverse over reverse": lambda x, s, b, v: jax.grad(lambda x: jnp.vdot(slope(x, s, b), v))(x),
        "reverse over forward": lambda x, s, b, v: jax.grad(lambda s: jax.jvp(lambda x: loss(x, s, b), (x,), (v,))[1])(
            s
        ),
        "vmap": lambda x, s, b, v: jax.vmap(slope, (0, None, None))(jnp.stack([x, v]), s, b),
        "vmap of scales": lambda x, s, b, v: jax.vmap(slope, (None, 0, 0))(x, jnp.stack([s, -s]), jnp.stack([b, s])),
        "remat": lambda x, s, b, v: jax.grad(jax.checkpoint(loss))(x, s, b),
        "scan": lambda x, s, b, v: jax.grad(repeated)(x, s, b),
    }


@pytest.mark.parametrize("name", transformed(plain))
def test_transformations_give_what_they_give_of_plain_jax(name: str) -> None:
    rng = np.random.default_rng(0)
    x, v = rng.normal(2, 1, (2, 3, 5, 7, 4))
    scale, offset = rng.normal(size=(2, 4))
    with jax.enable_x64(True):
        exact = jax.jit(transformed(plain)[name])(x, scale, offset, v)
        wide = jax.jit(transformed(normalised)[name])(x, scale, offset, v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), wide, exact)
    found = fresh(transformed(normalised)[name], *(jnp.asarray(a, jnp.float32) for a in (x, scale, offset, v)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, exact)


def test_native_kernels_read_bfloat16_where_it_is_widened(kernels: str) -> None:
    def loss(x: jax.Array, scale: jax.Array) -> jax.Array:
        y = normalised(x.astype(jnp.float32), scale, scale).astype(x.dtype)
        return jnp.sum(jax.nn.relu(y))

    for dtype, short in (("bfloat16", "bf16"), ("float32", "f32"), ("float16", "f32")):
        found = calls(jax.grad(loss, (0, 1)), jnp.ones(LARGE, dtype), jnp.ones(LARGE[-1]))
        expected = [("convjax_moments", short), ("convjax_channel_sums", short)]
        assert found == (expected if kernels == "native" else [])


@pytest.mark.parametrize("kernels", ["native"], indirect=True)
def test_few_numbers_are_left_to_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # of the fixture: its own limit again
    assert calls(channels.moments, jnp.ones((1, 2, 2, 3))) == []


@pytest.mark.parametrize("kernels", ["native"], indirect=True)
def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    x, dy = jnp.asarray(np.random.default_rng(0).normal(size=(2, *LARGE)), jnp.float32)
    threads = ctypes.CDLL("libgomp.so.1")
    before, found = threads.omp_get_max_threads(), []
    try:
        for number in (1, 2, 3):
            threads.omp_set_num_threads(number)
            found.append(fresh(lambda x, dy: (channels.moments(x), channels.sums(dy, x, x[0, 0, 0])), x, dy))
    finally:
        threads.omp_set_num_threads(before)
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)
