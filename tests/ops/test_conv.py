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

EXAMPLE = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(reference.convolutions())
def test_conv2d_and_its_gradient_are_those_of_the_definition(
    case: tuple[Geometry, int, tuple[int, ...], tuple[int, ...]],
) -> None:
    g, groups, image_shape, kernel_shape = case
    x, kernel = integers(1, *image_shape), integers(2, *kernel_shape)
    dy = integers(3, image_shape[0], *g.output, kernel_shape[3])

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return ops.conv2d(x, kernel, stride=g.stride, padding=g.padding, dilation=g.dilation, groups=groups)

    @jax.jit
    def value_and_gradient(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        y, backward = jax.vjp(conv, x, kernel)
        return y, *backward(dy)

    y, dx, dkernel = value_and_gradient(x, kernel, dy)
    expected_dx, expected_dkernel = reference.conv2d_gradient(x, kernel, dy, g, groups)
    np.testing.assert_array_equal(y, reference.conv2d(x, kernel, g, groups))
    np.testing.assert_array_equal(dx, expected_dx)
    np.testing.assert_array_equal(dkernel, expected_dkernel)
    assert y.dtype == dx.dtype == dkernel.dtype == jnp.float32


def test_conv2d_of_a_3x3_image_is_what_pencil_and_paper_give() -> None:
    # [[1 2 3] [4 5 6] [7 8 9]] with [[1 2] [3 4]], not flipped: 1*1 + 2*2 + 4*3 + 5*4 = 37, and so on.
    kernel = jnp.array([[1.0, 2.0], [3.0, 4.0]])[:, :, None, None]
    np.testing.assert_array_equal(ops.conv2d(EXAMPLE, kernel, padding="VALID")[0, :, :, 0], [[37, 47], [67, 77]])
    # SAME puts the one extra pixel to the bottom and the right: 3*1 + 6*3 = 21 at the end of the first row.
    np.testing.assert_array_equal(
        ops.conv2d(EXAMPLE, kernel, padding="SAME")[0, :, :, 0], [[37, 47, 21], [67, 77, 33], [23, 26, 9]]
    )


def test_conv2d_is_linear_in_images_and_in_kernel() -> None:
    x1, x2 = integers(1, 2, 5, 6, 4), integers(2, 2, 5, 6, 4)
    k1, k2 = integers(3, 3, 3, 2, 4), integers(4, 3, 3, 2, 4)

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return ops.conv2d(x, kernel, groups=2, stride=2)

    np.testing.assert_array_equal(conv(x1 + 3 * x2, k1), conv(x1, k1) + 3 * conv(x2, k1))
    np.testing.assert_array_equal(conv(x1, k1 + 3 * k2), conv(x1, k1) + 3 * conv(x1, k2))


def test_conv2d_of_a_shifted_image_is_the_shifted_output() -> None:
    x, kernel = integers(1, 1, 9, 9, 2), integers(2, 3, 3, 2, 3)
    shifted = np.roll(x, (2, 1), axis=(1, 2))
    # The border, where what rolled around comes in and zeros go out, is left aside.
    np.testing.assert_array_equal(ops.conv2d(shifted, kernel)[:, 3:-1, 2:-1], ops.conv2d(x, kernel)[:, 1:-3, 1:-2])


@pytest.mark.parametrize("groups", [1, 3])
def test_conv2d_with_an_identity_kernel_returns_its_input(groups: int) -> None:
    kernel = jnp.zeros((3, 3, 3 // groups, 3)).at[1, 1].set(jnp.eye(3) if groups == 1 else 1)
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
    np.testing.assert_array_equal(ops.conv2d(x, kernel, groups=groups), x)


def test_depthwise_conv2d_does_not_mix_channels() -> None:
    x, kernel = integers(1, 2, 5, 5, 3), integers(2, 3, 3, 1, 6)
    both = ops.conv2d(x, kernel, groups=3)
    for o in range(6):
        alone = ops.conv2d(x[..., o // 2, None], kernel[..., o, None])
        np.testing.assert_array_equal(both[..., o], alone[..., 0])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 7), st.integers(1, 5), st.integers(1, 3))
def test_same_padding_makes_the_output_ceil_of_size_over_stride(
    size: int, window: int, stride: int, dilation: int
) -> None:
    y = jax.eval_shape(
        lambda x, k: ops.conv2d(x, k, stride=stride, dilation=dilation, padding="SAME"),
        jax.ShapeDtypeStruct((1, size, 1, 1), jnp.float32),
        jax.ShapeDtypeStruct((window, 1, 1, 1), jnp.float32),
    )
    assert y.shape == (1, -(-size // stride), -(-1 // stride), 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": (3, 3, 1)}, r"conv2d takes images \[N, H, W, C\], not an array of shape \(3, 3, 1\)"),
        ({"kernel": (3, 3, 4)}, r"conv2d takes a kernel .* not \(3, 3, 4\)"),
        ({"groups": 3}, "groups is 3: it must divide 4 input and 6 output channels"),
        ({"groups": 4, "kernel": (3, 3, 1, 6)}, "groups is 4: it must divide 4 input and 6 output"),
        ({"groups": 0}, "groups is 0"),
        ({"kernel": (3, 3, 3, 6)}, "takes 3 channels a group, but 4 input channels in 1 groups have 4"),
        ({"groups": 2}, "takes 4 channels a group, but 4 input channels in 2 groups have 2"),
        ({"padding": -1}, "padding is -1"),
        ({"padding": "same"}, "padding is 'same': it must be SAME, VALID"),
        ({"padding": (1, 2, 3)}, r"padding is \(1, 2, 3\)"),
        ({"padding": (1, 2)}, r"padding is \(1, 2\)"),
        ({"padding": ((0, -1), (0, 0))}, r"padding is \(0, -1\)"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": (1, 0)}, r"stride is \(1, 0\)"),
        ({"stride": (1, 1, 1)}, r"stride is \(1, 1, 1\)"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"stride": True}, "stride is True"),
        ({"padding": True}, "padding is True"),
        ({"padding": ((0, 0), 1)}, r"padding is \(\(0, 0\), 1\)"),
        ({"dilation": 0}, "dilation is 0"),
        ({"kernel": (6, 3, 4, 6)}, r"a window spanning 6 pixels does not fit into 5"),
        ({"dilation": (1, 3)}, r"a window spanning 7 pixels does not fit into 5"),
    ],
)
def test_conv2d_refuses_what_does_not_fit_together(arguments: dict[str, Any], message: str) -> None:
    shapes = {"x": (1, 5, 5, 4), "kernel": (3, 3, 4, 6)}
    arrays = {name: jnp.zeros(arguments.get(name, shape)) for name, shape in shapes.items()}
    with pytest.raises(ValueError, match=message):
        ops.conv2d(**({"padding": "VALID"} | arguments | arrays))


@pytest.mark.parametrize(
    ("size", "window", "stride", "pad", "dilation", "expected"),
    [
        # The worked examples of Dumoulin and Visin, arXiv:1603.07285, chapters 2 and 5.1.
        (4, 3, 1, (0, 0), 1, 2),
        (5, 4, 1, (2, 2), 1, 6),
        (5, 3, 1, (1, 1), 1, 5),
        (5, 3, 2, (0, 0), 1, 2),
        (5, 3, 2, (1, 1), 1, 3),
        (6, 3, 2, (1, 1), 1, 3),
        (7, 3, 1, (0, 0), 2, 3),
        # AlexNet's and ResNet's first layers.
        (227, 11, 4, (0, 0), 1, 55),
        (224, 7, 2, (3, 3), 1, 112),
    ],
)
def test_output_size_is_that_of_published_examples(
    size: int, window: int, stride: int, pad: tuple[int, int], dilation: int, expected: int
) -> None:
    assert ops.output_size(size, window, stride, pad, dilation) == expected
