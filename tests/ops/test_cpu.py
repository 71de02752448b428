"""The kernels for CPUs compute what stock XLA computes, under every transformation."""

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from compiling import fresh, lowered, need_native, require_stocks_integers
from hypothesis import given, settings
from jax import lax
from reference import Geometry, integers

from convjax.errors import UsageError
from convjax.ops import cpu
from convjax.ops.cpu import native

CALL = "convjax_convolve"


@pytest.fixture(params=["pure", "native"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kind of kernels, switched on."""
    if request.param == "native":
        need_native()
    with cpu.switched_on(request.param):
        yield request.param


def convolution(
    stride: int = 1, dilation: int = 1, groups: int = 1, padding: str = "SAME"
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Stock JAX's convolution, which `ops.conv2d` adds rules of its own to."""

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return convolve


def convolved(x: jax.Array, kernel: jax.Array, g: Geometry, groups: int) -> jax.Array:
    """Stock JAX's convolution of a geometry."""
    return lax.conv_general_dilated(
        x,
        kernel,
        g.strides,
        g.pads,
        rhs_dilation=g.dilations,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=reference.convolutions())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["pure", "native"])
def test_convolution_and_its_gradients_are_those_of_the_definition(
    kind: cpu.Kernels, dtype: str, case: tuple[Geometry, int, tuple[int, ...], tuple[int, ...]]
) -> None:
    if kind == "native":
        need_native()
    # Sums of fewer than 256 products of which none is above 1 have no more than the 8 bits of bfloat16.
    compare_with_definition(kind, *case, dtype, largest=4 if dtype == "float32" else 1)


def compare_with_definition(
    kind: cpu.Kernels,
    g: Geometry,
    groups: int,
    image_shape: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    dtype: Any = jnp.float32,
    largest: int = 4,
) -> str:
    """Compares a convolution and its gradients, in integers, and returns the program."""
    drawn = (image_shape, kernel_shape, (image_shape[0], *g.output, kernel_shape[3]))
    x, kernel, dy = (integers(seed, *shape).clip(-largest, largest) for seed, shape in enumerate(drawn, 1))

    def value_and_gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> Any:
        y, backward = jax.vjp(lambda x, kernel: convolved(x, kernel, g, groups), x, kernel)
        return y, *backward(dy)

    arrays = [jnp.asarray(array, dtype) for array in (x, kernel, dy)]
    with cpu.switched_on(kind):
        text = lowered(value_and_gradients, *arrays)
        y, dx, dkernel = (np.asarray(a, np.float32) for a in fresh(value_and_gradients, *arrays))
    expected_dx, expected_dkernel = reference.conv2d_gradient(x, kernel, dy, g, groups)
    np.testing.assert_array_equal(y, reference.conv2d(x, kernel, g, groups))
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_array_equal(dkernel, expected_dkernel)
    return text


DEPTHWISE = [
    Geometry((9, 8), (3, 3), 1, "SAME"),
    Geometry((9, 8), (3, 3), 2, "SAME"),
    Geometry((7, 10), (5, 5), 2, ((2, 2), (2, 2))),
    Geometry((8, 8), (1, 3), (1, 3), "VALID"),
    Geometry((8, 7), (2, 2), 3, ((1, 0), (0, 2))),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("g", DEPTHWISE, ids=str)
def test_pure_kernels_convolve_each_channel_by_itself_tap_by_tap(g: Geometry, dtype: str) -> None:
    text = compare_with_definition("pure", g, 3, (2, *g.image, 3), (*g.window, 1, 3), dtype)
    assert "stablehlo.convolution" not in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("groups", [1, 2, 16])
def test_native_kernels_compute_in_float32_what_onednn_has_no_fast_kernel_for(groups: int, dtype: str) -> None:
    need_native()
    kernel_shape = (3, 3, 16 // groups, 16)
    text = compare_with_definition("native", DEPTHWISE[1], groups, (2, 9, 8, 16), kernel_shape, dtype)
    assert "stablehlo.convolution" not in text
    results = re.findall(rf"custom_call @{CALL}.*-> tensor<(?:\d+x)*(\w+)>", text)
    narrow = 0 if dtype != "bfloat16" or native.lacks_bfloat16() else 2 if groups == 16 else 3
    assert sorted(results) == ["bf16"] * narrow + ["f32"] * (3 - narrow)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stride", [2, (1, 2), (3, 2)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_strided_pointwise_convolutions_are_those_of_the_definition(
    kernels: cpu.Kernels, channels: int, stride: int | tuple[int, int], dtype: str
) -> None:
    """Whose last rows and columns may have been seen, or not."""
    for size in ((8, 9), (7, 6)):
        g = Geometry(size, (1, 1), stride, "VALID")
        compare_with_definition(kernels, g, 1, (3, *size, channels), (1, 1, channels, 5), dtype)


def test_bfloat16_is_concatenated_as_it_is(kernels: str) -> None:
    """All 2^16 of them, those that are no numbers too, which a conversion to float32 and back may make others of."""
    every = np.arange(2**16, dtype=np.uint16).reshape(2**8, 2**8)

    def concatenate(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.concatenate([x, y], 1)

    given = [lax.bitcast_convert_type(bits, jnp.bfloat16) for bits in (every[:, :100], every[:, 100:])]
    np.testing.assert_array_equal(fresh(concatenate, *given).view(np.uint16), every)
    assert "f32" not in str(jax.jit(lambda *a: concatenate(*a)).lower(*given).compile().as_text())


@pytest.mark.parametrize(
    "geometry",
    [{}, {"stride": 2}, {"dilation": 2}, {"groups": 4, "stride": 2}, {"groups": 8}, {"padding": "VALID", "stride": 2}],
    ids=str,
)
def test_native_kernels_serve_the_pass_forward_and_both_gradients(geometry: dict[str, Any]) -> None:
    need_native()
    convolve = convolution(**geometry)
    x, kernel = integers(1, 2, 9, 8, 8), integers(2, 3, 3, 8 // geometry.get("groups", 1), 16)

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(convolve(x, kernel) ** 2)

    with cpu.switched_on("native"):
        text = lowered(jax.grad(loss, (0, 1)), x, kernel)
    assert (text.count(CALL), text.count("stablehlo.convolution")) == (3, 0)


Loss = Callable[[jax.Array, jax.Array], jax.Array]
TRANSFORMED: dict[str, Callable[[Loss, jax.Array, jax.Array], Any]] = {}


def transformed(f: Callable[[Loss, jax.Array, jax.Array], Any]) -> Callable[[Loss, jax.Array, jax.Array], Any]:
    TRANSFORMED[f.__name__] = f
    return f


@transformed
def jvp(loss: Loss, x: jax.Array, kernel: jax.Array) -> Any:
    return jax.jvp(loss, (x, kernel), (x[::-1], kernel[::-1]))


@transformed
def hessian_vector_product(loss: Loss, x: jax.Array, kernel: jax.Array) -> Any:
    return jax.jvp(lambda k: jax.grad(loss, 1)(x, k), (kernel,), (kernel[::-1],))[1]


@transformed
def vmap_over_images_and_kernels(loss: Loss, x: jax.Array, kernel: jax.Array) -> Any:
    return jax.vmap(jax.grad(loss, (0, 1)))(jnp.stack([x, x[::-1]]), jnp.stack([kernel, -kernel[::-1]]))


@transformed
def vmap_over_images(loss: Loss, x: jax.Array, kernel: jax.Array) -> Any:
    return jax.vmap(jax.grad(loss, 1), (0, None))(jnp.stack([x, x[::-1]]), kernel)


@transformed
def remat(loss: Loss, x: jax.Array, kernel: jax.Array) -> Any:
    return jax.grad(jax.checkpoint(loss), (0, 1))(x, kernel)


@transformed
def scan(loss: Loss, x: jax.Array, kernel: jax.Array) -> Any:
    def step(kernel: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        value, gradient = jax.value_and_grad(loss, 1)(x, kernel)
        return kernel - gradient.clip(-1, 1), (value, gradient)

    return lax.scan(step, kernel, jnp.stack([x, x[::-1], -x]))


def two_convolutions(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One strided and grouped, with something curved between them."""
    hidden = convolution()(x, kernel[..., : x.shape[-1]]) ** 2
    return jnp.sum(convolution(stride=2, groups=2)(hidden, kernel[:, :, : kernel.shape[2] // 2]) ** 2) / 1e6


@pytest.mark.parametrize(
    ("images", "window"), [((2, 9, 8, 4), (3, 3, 4, 8)), ((8, 8, 8, 32), (3, 3, 32, 32))], ids=["few", "winograd"]
)
@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations_give_what_stock_gives(
    kernels: cpu.Kernels, name: str, images: tuple[int, ...], window: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(images, np.float32)
    kernel = rng.standard_normal(window, np.float32) / np.sqrt(np.prod(window[:3]), dtype=np.float32)
    assert cpu.active() == kernels
    transform = functools.partial(TRANSFORMED[name], two_convolutions)
    found = fresh(transform, x, kernel)
    with jax.enable_x64(True):
        # The definition in float64, so that only what is tested rounds; kernels know float32 and bfloat16 alone.
        wide = fresh(transform, x.astype(np.float64), kernel.astype(np.float64))
    for ours, exact in zip(jax.tree.leaves(found), jax.tree.leaves(wide), strict=True):
        # Sums of up to some 1000 products, each rounded by 6e-8 of its terms.
        np.testing.assert_allclose(ours, exact, rtol=0, atol=2e-5 * np.abs(exact).max())


@settings(max_examples=8, deadline=None, derandomize=True)
@given(case=reference.convolutions())
@pytest.mark.parametrize("kind", ["pure", "native"])
def test_transformations_of_drawn_convolutions_give_stocks_integers(
    kind: cpu.Kernels, case: tuple[Geometry, int, tuple[int, ...], tuple[int, ...]]
) -> None:
    g, groups, image_shape, kernel_shape = case
    x, kernel = (integers(seed, *shape).clip(-1, 1) for seed, shape in ((1, image_shape), (2, kernel_shape)))

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(convolved(x, kernel, g, groups) ** 2)

    def every(x: jax.Array, kernel: jax.Array) -> Any:
        return [transform(loss, x, kernel) for transform in TRANSFORMED.values()]

    require_stocks_integers(kind, every, x, kernel)


def test_bfloat16_rounds_once_more_than_float32(kernels: cpu.Kernels) -> None:
    x, kernel = (
        jnp.asarray(integers(seed, *shape), "bfloat16") for seed, shape in ((1, (2, 8, 8, 16)), (2, (3, 3, 16, 32)))
    )

    def value_and_gradients(x: jax.Array, kernel: jax.Array) -> Any:
        y, backward = jax.vjp(convolution(stride=2), x, kernel)
        return y, *backward(jnp.ones_like(y))

    for half, whole in zip(
        fresh(value_and_gradients, x, kernel),
        fresh(value_and_gradients, x.astype("float32"), kernel.astype("float32")),
        strict=True,
    ):
        assert half.dtype == jnp.bfloat16
        # Integers are exact in float32, so that the only difference is bfloat16's rounding to 8 bits of the result.
        np.testing.assert_allclose(half.astype(np.float32), whole, rtol=2**-8)


WITHOUT_AVX512 = """
import jax, jax.numpy as jnp
from jax import lax
from convjax.ops import cpu

def convolution(stride):
    return lambda x, kernel: lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ).sum()

def gradient(stride, channels, window, dtype):
    x, kernel = jnp.ones((4, 8, 8, channels), dtype), jnp.ones((window, window, channels, 16), dtype)
    with cpu.switched_on("native"):
        lowered = jax.jit(jax.grad(convolution(stride), argnums=1)).lower(x, kernel)
        value = lowered.compile()(x, kernel)
    return lowered.as_text().count("convjax_convolve"), float(value.min()), float(value.max())

print([gradient(1, 16, 1, "float32"), gradient(1, 16, 1, "bfloat16"), gradient(2, 1, 1, "float32")])
"""


def test_a_processor_without_avx512_computes_bfloat16_in_float32() -> None:
    """And leaves to the pure kernels the one gradient that oneDNN gets wrong there: ones sum to their number."""
    need_native()
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    done = subprocess.run([sys.executable, "-c", WITHOUT_AVX512], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == [(1, 256, 256), (1, 256, 256), (0, 64, 64)]


def test_stock_linen_is_served_and_nothing_stays_switched_on() -> None:
    model = nn.Conv(8, (3, 3))
    x = integers(1, 1, 8, 8, 4)
    variables = model.init(jax.random.key(0), x)
    before = lowered(model.apply, variables, x)
    assert CALL not in before
    if not native.unavailable():
        with cpu.switched_on("native"):
            assert CALL in lowered(model.apply, variables, x)
            with cpu.switched_on("pure"):  # inside of another nothing changes
                assert cpu.active() == "native"
    with pytest.raises(ZeroDivisionError), cpu.switched_on("pure"):
        raise ZeroDivisionError
    assert cpu.active() == "off"
    assert lowered(model.apply, variables, x) == before


def along(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))


def channels_first(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))


def exact(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )


@pytest.mark.parametrize(
    ("convolve", "shapes", "dtype"),
    [
        (convolution(), ((1, 5, 5, 2), (3, 3, 2, 2)), "int32"),
        (along, ((1, 5, 2), (3, 2, 2)), "float32"),
        (channels_first, ((1, 2, 5, 5), (2, 2, 3, 3)), "float32"),
        (exact, ((1, 5, 5, 2), (3, 3, 2, 2)), "float32"),
    ],
)
def test_what_kernels_do_not_know_goes_by_stock(
    kernels: cpu.Kernels, convolve: Any, shapes: tuple[tuple[int, ...], tuple[int, ...]], dtype: str
) -> None:
    text = lowered(convolve, *(jnp.ones(shape, dtype) for shape in shapes))
    assert CALL not in text
    assert "stablehlo.convolution" in text


def test_padding_may_crop(kernels: cpu.Kernels) -> None:
    x, kernel = integers(1, 1, 6, 7, 2), integers(2, 3, 3, 2, 4)

    def cropped(x: jax.Array, kernel: jax.Array) -> jax.Array:
        pads = ((-1, 2), (1, -2))
        return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    g = Geometry((5, 5), (3, 3), 1, ((0, 2), (1, 0)))
    np.testing.assert_array_equal(fresh(cropped, x, kernel), reference.conv2d(x[:, 1:, :-2], kernel, g, 1))


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for kernels in ("off", "pure"):
        monkeypatch.setenv(cpu.VARIABLE, kernels)
        assert cpu.chosen() == kernels
        with cpu.switched_on():
            assert cpu.active() == kernels
    monkeypatch.setenv(cpu.VARIABLE, "fast")
    with pytest.raises(UsageError, match=r"CONVJAX_CPU_KERNELS is 'fast': it must be one of off, pure, native"):
        cpu.chosen()
    monkeypatch.delenv(cpu.VARIABLE)
    assert cpu.chosen() == ("pure" if native.unavailable() else "native")
    monkeypatch.setattr(native, "unavailable", lambda: "not built")
    assert cpu.chosen() == "pure"
    monkeypatch.setenv(cpu.VARIABLE, "native")
    with pytest.raises(UsageError, match="is native, but the extension is not built"):
        cpu.chosen()
