"""Convolutions with their epilogues against the same operations one by one."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import fresh, lowered, need_native
from jax import lax

from convjax import ops
from convjax.models import create
from convjax.ops import cpu
from convjax.ops.epilogue import with_epilogues

NAME = "convolution_with_epilogue"
Function = Callable[..., jax.Array]


def conv(x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    return ops.conv2d(x, kernel, padding="SAME", **options)


def norm(y: jax.Array, c: jax.Array) -> jax.Array:
    """Mean, factor and offset of each channel, in float32, as batch norm has them in evaluation."""
    return ((y - c[0]) * c[1] + c[2]).astype(y.dtype)


TAKEN: dict[str, Function] = {
    "norm": lambda x, k, c, s: norm(conv(x, k), c),
    "norm, rectifier": lambda x, k, c, s: ops.relu(norm(conv(x, k), c)),
    "stock rectifier": lambda x, k, c, s: jax.nn.relu(norm(conv(x, k), c)),
    "norm, shortcut, rectifier": lambda x, k, c, s: ops.relu(norm(conv(x, k), c) + s),
    "shortcut first": lambda x, k, c, s: ops.relu(s + norm(conv(x, k), c)),
    "shortcut that comes later": lambda x, k, c, s: ops.relu(norm(conv(x, k), c) + jnp.flip(s) * 2),
    "shortcut alone": lambda x, k, c, s: conv(x, k) + s,
    "rectifier alone": lambda x, k, c, s: ops.relu(conv(x, k)),
    "norm, rectifier up to six": lambda x, k, c, s: ops.relu6(norm(conv(x, k), 4 * c)),
    "strided": lambda x, k, c, s: ops.relu(norm(conv(x, k, stride=2), c)),
    "bias": lambda x, k, c, s: conv(x, k) + c[0].astype(x.dtype),
    "inside of jit": lambda x, k, c, s: jax.jit(lambda y: ops.relu(norm(conv(y, k), c)))(x),
    "then something else": lambda x, k, c, s: jnp.tanh(ops.relu(norm(conv(x, k), c)))[:, ::2] * 3,
}
LEFT: dict[str, Function] = {
    "used twice": lambda x, k, c, s: (lambda y: ops.relu(y) + jnp.flip(y))(conv(x, k)),
    "a number for each image and channel": lambda x, k, c, s: conv(x, k) * s[:, :1, :1],
    "another function": lambda x, k, c, s: jnp.sin(conv(x, k)),
    "a limit of five": lambda x, k, c, s: jnp.minimum(jnp.sin(conv(x, k)), 5),
    "hyperbolic tangent of something else": lambda x, k, c, s: jnp.tanh(jnp.flip(conv(x, k))),
    "another limit": lambda x, k, c, s: jnp.maximum(conv(x, k), 1),
    "a minimum": lambda x, k, c, s: jnp.minimum(conv(x, k), 0),
    "subtracted from": lambda x, k, c, s: s - conv(x, k),
    "a number for each column": lambda x, k, c, s: conv(x, k) + jnp.arange(8.0, dtype=x.dtype)[:, None],
}


@pytest.fixture(params=["off", "pure", "native"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "native":
        need_native()
    with cpu.switched_on(request.param):
        yield request.param


def arguments(dtype: str) -> list[jax.Array]:
    """Images, a kernel, three numbers of each channel, and a shortcut: small integers, exact in bfloat16."""
    rng = np.random.default_rng(0)
    x, kernel, shortcut = (rng.integers(-1, 2, shape) for shape in ((2, 6, 8, 8), (3, 3, 8, 8), (2, 6, 8, 8)))
    channels = rng.integers(-2, 3, (3, 8))
    return [
        *(jnp.asarray(a, dtype) for a in (x, kernel)),
        jnp.asarray(channels, jnp.float32),
        jnp.asarray(shortcut, dtype),
    ]


def count(f: Function, given: list[jax.Array]) -> int:
    return str(jax.make_jaxpr(with_epilogues(f))(*given)).count(f"= {NAME}[")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_nothing_changes_in_the_numbers(kernels: str, name: str, dtype: str) -> None:
    f, given = {**TAKEN, **LEFT}[name], arguments(dtype)
    plain = f(*given)
    found = fresh(with_epilogues(f), *given)
    assert found.dtype == plain.dtype
    np.testing.assert_array_equal(found.astype(jnp.float32), plain.astype(jnp.float32))
    assert count(f, given) == (name in TAKEN)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("name", "steps"), [("norm, shortcut, rectifier", [0, 1, 2, 3, 4]), ("norm, rectifier up to six", [0, 1, 2, 5])]
)
def test_native_kernels_leave_nothing_of_it(name: str, steps: list[int], dtype: str) -> None:
    need_native()
    with cpu.switched_on("native"):
        text = lowered(with_epilogues(TAKEN[name]), *arguments(dtype))
    assert re.findall(r"steps = dense<(.*?)>", text) == [str(steps)]
    assert not re.search(r"stablehlo\.(maximum|minimum|add|subtract|convolution)", text)


@pytest.mark.parametrize("channels", [8, 32])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_hyperbolic_tangent_is_that_of_float64_rounded(kernels: str, dtype: str, channels: int) -> None:
    """With 32 channels, those of Winograd's algorithm, which has none."""
    rng = np.random.default_rng(0)
    x, kernel = (rng.integers(-1, 2, shape) for shape in ((8, 8, 8, channels), (3, 3, channels, channels)))
    bias = rng.integers(-2, 3, channels)

    def fused(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return jnp.tanh(conv(x, kernel) + bias)

    given = [jnp.asarray(array, dtype) for array in (x, kernel, bias)]
    assert count(fused, given) == 1
    text = lowered(with_epilogues(fused), *given)
    assert ("steps = dense<[2, 6]>" in text) == (kernels == "native")
    whole = np.asarray(fresh(conv, *(jnp.asarray(array, jnp.float32) for array in (x, kernel)))) + bias
    error = float(jnp.finfo(dtype).eps) * (2 if dtype == "float32" else 0.5)
    found = fresh(with_epilogues(fused), *given).astype(np.float64)
    np.testing.assert_allclose(found, np.tanh(whole), rtol=error * 1.01)


def test_names_of_modules_are_kept() -> None:
    model = create("resnet20", num_classes=10)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))

    def logits(variables: Any, images: jax.Array) -> jax.Array:
        return jnp.asarray(model.apply(variables, images, train=False))

    assert str(jax.make_jaxpr(with_epilogues(logits))(variables, images)).count(f"= {NAME}[") == 19
    text = jax.jit(with_epilogues(logits)).lower(variables, images).as_text(debug_info=True)
    assert "stage2_block1" in text


def test_loops_and_gradients_elsewhere_are_untouched() -> None:
    given = arguments("float32")

    def f(x: jax.Array, kernel: jax.Array, channels: jax.Array, shortcut: jax.Array) -> tuple[jax.Array, jax.Array]:
        def body(h: jax.Array, _: Any) -> tuple[jax.Array, None]:
            return ops.relu(norm(conv(h, kernel), channels)) / 64, None

        slopes = jax.grad(lambda k: (ops.relu(conv(x, k)) * shortcut).sum())(kernel)
        return lax.scan(body, x, length=2)[0], slopes

    jax.tree.map(np.testing.assert_array_equal, fresh(with_epilogues(f), *given), fresh(f, *given))
