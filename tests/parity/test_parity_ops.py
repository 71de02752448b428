"""The operations against PyTorch in float64, so that only convjax rounds to float32."""

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convjax import ops

pytestmark = pytest.mark.parity

Pair: TypeAlias = tuple[int, int]
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

few_shapes = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@pytest.fixture(scope="module")
def torch() -> Any:
    return importlib.import_module("torch")


def normal(seed: int, shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def compare(torch: Any, ours: Callable[..., jax.Array], theirs: Callable[..., Any], *inputs: Array) -> None:
    """Asserts equal values and equal gradients of a randomly weighted sum; images are NHWC here, NCHW in PyTorch."""
    tensors = [torch.from_numpy(x).double().requires_grad_() for x in inputs]
    expected = theirs(*tensors)
    dy = normal(9, tuple(expected.shape))
    expected.backward(torch.from_numpy(dy).double())

    @jax.jit
    def value_and_gradient(dy: jax.Array, *inputs: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        y, backward = jax.vjp(ours, *inputs)
        return y, backward(dy)

    y, gradients = value_and_gradient(jnp.asarray(dy), *inputs)
    # Sums of at most 300 products of standard normals: partial sums stay below 64, where a rounding is at
    # most 2^-19 and on average far less; 1e-5 leaves no room for a missing term.
    for actual, desired in zip((y, *gradients), (expected.detach(), *(t.grad for t in tensors)), strict=True):
        np.testing.assert_allclose(actual, desired.numpy(), rtol=1e-5, atol=1e-5)


def nchw(x: Any) -> Any:
    return x.permute(0, 3, 1, 2)


def nhwc(x: Any) -> Any:
    return x.permute(0, 2, 3, 1)


@few_shapes
@given(
    image=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    kernel=pairs,
    stride=st.one_of(st.integers(1, 3), pairs),
    dilation=st.one_of(st.integers(1, 2), pairs),
    groups=st.integers(1, 3),
    multiples=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    extra=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_conv2d_is_pytorchs(
    torch: Any,
    image: Pair,
    kernel: Pair,
    stride: int | Pair,
    dilation: int | Pair,
    groups: int,
    multiples: Pair,
    extra: Pair,
) -> None:
    steps = (dilation, dilation) if isinstance(dilation, int) else dilation
    # Enough padding for the window to fit, and up to two pixels more.
    rows, columns = (
        max(d * (k - 1) + 1 - n + 1, 0) // 2 + e for n, k, d, e in zip(image, kernel, steps, extra, strict=True)
    )
    channels, features = groups * multiples[0], groups * multiples[1]

    def ours(x: jax.Array, w: jax.Array) -> jax.Array:
        padding = ((rows, rows), (columns, columns))
        return ops.conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def theirs(x: Any, w: Any) -> Any:
        conv2d = torch.nn.functional.conv2d
        w = w.permute(3, 2, 0, 1)
        return nhwc(conv2d(nchw(x), w, stride=stride, padding=(rows, columns), dilation=dilation, groups=groups))

    compare(torch, ours, theirs, normal(1, (2, *image, channels)), normal(2, (*kernel, multiples[0], features)))


@few_shapes
@given(
    image=st.tuples(st.integers(3, 8), st.integers(3, 8)),
    window=pairs,
    stride=st.one_of(st.none(), st.integers(1, 3), pairs),
    padded=st.tuples(st.booleans(), st.booleans()),
    kind=st.sampled_from(["max", "average of the window", "average of the image"]),
)
def test_pools_are_pytorchs(
    torch: Any, image: Pair, window: Pair, stride: int | Pair | None, padded: tuple[bool, bool], kind: str
) -> None:
    # PyTorch pads by half of the window at most.
    rows, columns = (w // 2 if on else 0 for w, on in zip(window, padded, strict=True))
    count = kind == "average of the window"

    def ours(x: jax.Array) -> jax.Array:
        padding = ((rows, rows), (columns, columns))
        if kind == "max":
            return ops.max_pool(x, window, stride=stride, padding=padding)
        return ops.avg_pool(x, window, stride=stride, padding=padding, count_padding=count)

    def theirs(x: Any) -> Any:
        functional = torch.nn.functional
        if kind == "max":
            return nhwc(functional.max_pool2d(nchw(x), window, stride, (rows, columns)))
        return nhwc(functional.avg_pool2d(nchw(x), window, stride, (rows, columns), count_include_pad=count))

    compare(torch, ours, theirs, normal(1, (2, *image, 2)))


def test_max_pool_gives_ties_to_the_pixel_that_pytorch_gives_them_to(torch: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2, (2, 9, 9, 3)).astype(np.float32)
    compare(
        torch,
        lambda x: ops.max_pool(x, 3, stride=2, padding=1),
        lambda x: nhwc(torch.nn.functional.max_pool2d(nchw(x), 3, 2, 1)),
        x,
    )


@pytest.mark.parametrize("image", [(1, 1), (4, 7), (8, 8)])
def test_global_avg_pool_is_pytorchs_adaptive_pooling_to_one_pixel(torch: Any, image: Pair) -> None:
    compare(
        torch,
        ops.global_avg_pool,
        lambda x: torch.nn.functional.adaptive_avg_pool2d(nchw(x), 1).flatten(1),
        normal(1, (2, *image, 3)),
    )


@pytest.mark.parametrize("output", [(1, 1), (2, 3), (7, 7), (9, 5)])
def test_adaptive_avg_pool_is_pytorchs(torch: Any, output: Pair) -> None:
    compare(
        torch,
        lambda x: ops.adaptive_avg_pool(x, output),
        lambda x: nhwc(torch.nn.functional.adaptive_avg_pool2d(nchw(x), output)),
        normal(1, (2, 7, 5, 3)),
    )
