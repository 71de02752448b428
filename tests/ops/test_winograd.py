"""3 x 3 convolutions by Winograd's algorithm: against the definition, and what it rounds."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import fresh, lowered, need_native
from jax import lax

from convjax.ops import cpu
from convjax.ops.cpu import native
from convjax.ops.epilogue import with_epilogues

Pads: TypeAlias = tuple[tuple[int, int], tuple[int, int]]
Images: TypeAlias = tuple[int, int, int, int]

SAME: Pads = ((1, 1), (1, 1))
GEOMETRIES: list[tuple[Images, int, Pads]] = [
    ((16, 8, 8, 64), 64, SAME),
    ((8, 9, 7, 32), 40, SAME),
    ((6, 13, 14, 35), 33, ((0, 0), (2, 1))),
    ((140, 1, 1, 32), 32, SAME),
    ((40, 4, 3, 200), 32, ((3, 0), (0, 3))),
    ((3, 20, 21, 32), 100, ((2, 2), (2, 2))),
    ((5, 23, 23, 32), 33, SAME),
    ((8, 12, 12, 64), 48, ((-1, 2), (1, -2))),
]
"""Images, output channels and padding.

All are large enough to be taken by it, but for the last one's output and kernel's gradient, which kernels leave to XLA
where images are cropped. Only the fifth one's gradient of images is no plain convolution to JAX; the last but one has
more tiles than a kernel's gradient is summed over at once.
"""
LAYOUTS = ("HWIO", "OIHW", "IHOW")


@pytest.fixture(params=["pure", "native"])
def kernels(request: pytest.FixtureRequest) -> str:
    if request.param == "native":
        need_native()
    return str(request.param)


def convolve(x: jax.Array, kernel: jax.Array, pads: Pads = SAME, layout: str = "HWIO") -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=("NHWC", layout, "NHWC"))


def with_gradients(x: jax.Array, kernel: jax.Array, dy: jax.Array, pads: Pads = SAME, layout: str = "HWIO") -> Any:
    y, backward = jax.vjp(lambda x, kernel: convolve(x, kernel, pads, layout), x, kernel)
    return y, *backward(dy)


def computed(kernels: Any, x: Any, kernel: Any, dy: Any, pads: Pads = SAME, layout: str = "HWIO") -> Any:
    """Returns the output and both gradients by these kernels; the kernel and its gradient lie as `layout` says."""
    given = (jnp.asarray(array, jnp.float32) for array in (x, kernel, dy))
    with cpu.switched_on(kernels):
        return fresh(lambda x, kernel, dy: with_gradients(x, kernel, dy, pads, layout), *given)


def shapes(images: Images, outputs: int, pads: Pads) -> tuple[tuple[int, ...], ...]:
    """Returns the shapes of images, kernel and output."""
    rows, columns = (size + sum(pad) - 2 for size, pad in zip(images[1:3], pads, strict=True))
    return images, (3, 3, images[3], outputs), (images[0], rows, columns, outputs)


def definition(x: Any, kernel: Any, dy: Any, pads: Pads) -> Any:
    """Returns the output, and the gradients of images and kernel, as sums over the taps.

    The loops of `reference.conv2d` would take minutes for so many channels.
    """
    far = 8  # more than any padding, which may crop
    padded = np.pad(x, ((0, 0), (far, far), (far, far), (0, 0)))
    y, slopes, dkernel = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for u, v in np.ndindex(3, 3):
        top, left = far - pads[0][0] + u, far - pads[1][0] + v
        seen = np.s_[:, top : top + dy.shape[1], left : left + dy.shape[2]]
        y += padded[seen] @ kernel[u, v]
        slopes[seen] += dy @ kernel[u, v].T
        dkernel[u, v] = np.tensordot(padded[seen], dy, axes=((0, 1, 2), (0, 1, 2)))
    return y, slopes[:, far:-far, far:-far], dkernel


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_integers_are_convolved_exactly(kernels: str, geometry: tuple[Images, int, Pads]) -> None:
    """The transforms add and halve: all numbers are multiples of a quarter that float32 can hold."""
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.integers(-3, 4, shape).astype(np.float64) for shape in shapes(*geometry))
    pads = geometry[2]
    for found, expected in zip(computed(kernels, x, kernel, dy, pads), definition(x, kernel, dy, pads), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", [GEOMETRIES[1], GEOMETRIES[4]], ids=str)
def test_kernels_may_lie_in_any_order(kernels: str, geometry: tuple[Images, int, Pads], layout: str) -> None:
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.integers(-3, 4, shape).astype(np.float64) for shape in shapes(*geometry))
    order = ["HWIO".index(axis) for axis in layout]
    found = computed(kernels, x, kernel.transpose(order), dy, geometry[2], layout)
    y, dx, dkernel = definition(x, kernel, dy, geometry[2])
    for array, expected in zip(found, (y, dx, dkernel.transpose(order)), strict=True):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_once(kernels: Any, dtype: str) -> None:
    if kernels == "native" and dtype == "bfloat16" and not native.lacks_bfloat16():
        pytest.skip("oneDNN convolves bfloat16 here")
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes((8, 9, 7, 32), 40, SAME))
    with cpu.switched_on(kernels):
        found = fresh(with_gradients, *(jnp.asarray(array, dtype) for array in (x, kernel, dy)))
    for half, whole in zip(found, definition(x, kernel, dy, SAME), strict=True):
        np.testing.assert_array_equal(half, whole.astype(half.dtype))


def test_pure_kernels_take_it_for_gradients_of_many_images_from_16_channels_on() -> None:
    """The output and the gradient of images stay XLA's."""
    for batch, convolutions in ((64, 2), (63, 3)):
        given = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes((batch, 32, 32, 16), 16, SAME))
        with cpu.switched_on("pure"):
            assert lowered(with_gradients, *given).count("stablehlo.convolution") == convolutions


def root_mean_square(found: Any, expected: Any) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def term_by_term(x: Any, kernel: Any) -> Any:
    """Returns the output of a SAME convolution as float32 sums it when it adds one product after the other."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).transpose(3, 0, 1, 2).copy()
    y = np.zeros((*x.shape[:3], kernel.shape[3]), np.float32)
    product = np.empty_like(y)
    for u, v, channel in np.ndindex(kernel.shape[:3]):
        seen = padded[channel, :, u : u + x.shape[1], v : v + x.shape[2], None]
        np.multiply(seen, kernel[u, v, channel], out=product)
        y += product
    return y


@pytest.mark.parametrize(
    "geometry", [((8, 32, 32, 64), 64, SAME), ((8, 14, 14, 256), 256, SAME), ((64, 16, 16, 32), 32, SAME)], ids=str
)
def test_it_rounds_less_than_a_plain_sum(kernels: str, geometry: tuple[Images, int, Pads]) -> None:
    """Each number is a sum of sixteen sums over channels, where the definition has one of nine times as many terms."""
    rng = np.random.default_rng(0)
    x, kernel, dy = (rng.normal(size=shape).astype(np.float32) for shape in shapes(*geometry))
    exact = definition(x.astype(np.float64), kernel.astype(np.float64), dy.astype(np.float64), SAME)
    y, dx, dkernel = computed(kernels, x, kernel, dy)
    # The gradient of images is the convolution of the output's with the kernel turned by half a turn.
    plain = term_by_term(x, kernel), term_by_term(dy, kernel[::-1, ::-1].swapaxes(2, 3))
    assert root_mean_square(y, exact[0]) < root_mean_square(plain[0], exact[0])
    assert root_mean_square(dx, exact[1]) < root_mean_square(plain[1], exact[1])
    # Of the kernel's gradient, which is summed over all pixels in blocks.
    assert root_mean_square(dkernel, exact[2]) < 2e-6


def test_an_infinity_may_be_no_number_in_what_sees_it_and_is_nothing_elsewhere(kernels: str) -> None:
    """By the definition it stays one: so this tells what is taken, from 32 channels and 128 tiles on."""
    for images, outputs, taken in (
        ((8, 8, 8, 32), 32, True),
        ((8, 8, 8, 31), 32, False),
        ((8, 8, 8, 32), 31, False),
        ((7, 8, 8, 32), 32, False),
    ):
        x = np.zeros(images)
        x[0, 4, 4, 0] = np.inf
        y = computed(kernels, x, np.ones((3, 3, images[3], outputs)), np.zeros((*images[:3], outputs)))[0]
        assert not np.isfinite(y[0, 3:6, 3:6]).any()
        assert np.isnan(y).any() == taken
        assert np.count_nonzero(y) == y[0, 3:6, 3:6].size


def test_what_follows_it_is_computed_at_once() -> None:
    """Mean, factor and offset of each channel, a shortcut, and a rectifier that keeps what is not a number."""
    need_native()
    rng = np.random.default_rng(0)
    x, kernel, shortcut = (rng.integers(-2, 3, shape).astype(np.float32) for shape in shapes((8, 9, 8, 32), 40, SAME))
    channels = rng.integers(-2, 3, (3, 40)).astype(np.float32)
    x[7, 8, 7] = np.nan

    def f(x: jax.Array, kernel: jax.Array, shortcut: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.minimum(jnp.maximum((convolve(x, kernel) - c[0]) * c[1] + c[2] + shortcut, 0), 6)

    with cpu.switched_on("native"):
        text = lowered(with_epilogues(f), x, kernel, shortcut, channels)
        found = np.array(fresh(with_epilogues(f), x, kernel, shortcut, channels))
    assert re.findall(r"steps = dense<(.*?)>", text) == ["[0, 1, 2, 3, 5]"]
    assert not re.search(r"stablehlo\.(maximum|minimum|add|subtract)", text)
    expected = np.array(f(*(jnp.asarray(a) for a in (x, kernel, shortcut, channels))))
    np.testing.assert_array_equal(found[:7], expected[:7])
    assert np.isnan(found[7, 7:, 6:]).all()
    found[7, 7:, 6:] = expected[7, 7:, 6:] = 0
    np.testing.assert_array_equal(found[7], expected[7])
    assert (found[:7] == 0).any()
    assert (found[:7] == 6).any()


DIGEST = """
import hashlib
import numpy as np
from test_winograd import GEOMETRIES, computed, shapes

rng = np.random.default_rng(0)
digest = hashlib.sha256()
for geometry in GEOMETRIES:
    for array in computed("native", *(rng.normal(size=shape) for shape in shapes(*geometry)), geometry[2]):
        digest.update(np.asarray(array).tobytes())
print(digest.hexdigest())
"""


def test_bits_do_not_depend_on_the_number_of_threads_and_avx2_computes_the_same_integers() -> None:
    need_native()

    def run(program: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(DIGEST, OMP_NUM_THREADS="1") == run(DIGEST, OMP_NUM_THREADS="3")
    whole = DIGEST.replace("rng.normal(size=shape)", "rng.integers(-3, 4, shape)")
    assert run(whole, ONEDNN_MAX_CPU_ISA="AVX2") == run(whole)
