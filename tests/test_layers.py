import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.layers import ClassifierHead, Conv, ConvNormAct, DropBlock, DropPath, Layers, SqueezeExcite
from convjax.norms import Bias, GroupNorm, norm_factory

KEY = jax.random.key(0)


def layers(dtype: Any = "float32") -> Layers:
    return Layers.build(norm="batch", activation="relu", dtype=dtype, train=True)


def shapes(module: nn.Module, *image: int) -> Any:
    """Shapes and dtypes of the module's output and of its variables."""
    return jax.eval_shape(lambda x: module.init_with_output(KEY, x), jax.ShapeDtypeStruct(image, jnp.float32))


@pytest.mark.parametrize("kernel_size", [1, 3, 7, (3, 5)])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
def test_conv_with_an_odd_kernel_keeps_the_size(
    kernel_size: int | tuple[int, int], dilation: int | tuple[int, int]
) -> None:
    y, _ = shapes(Conv(4, kernel_size, dilation=dilation), 2, 9, 6, 3)
    assert y.shape == (2, 9, 6, 4)


def test_conv_with_default_padding_is_centred_on_its_pixel() -> None:
    kernel = np.zeros((3, 5, 1, 1), np.float32)
    kernel[1, 2] = 1
    x = np.arange(54, dtype=np.float32).reshape(1, 9, 6, 1)
    np.testing.assert_array_equal(Conv(1, (3, 5), dilation=(2, 1)).apply({"params": {"kernel": kernel}}, x), x)


def test_conv_kernels_start_with_the_variance_of_he_et_al() -> None:
    kernel = Conv(64, 3).init(KEY, jnp.zeros((1, 8, 8, 32)))["params"]["kernel"]
    # Equation 14: 2 / (kernel area * output channels). The variance of n normals has a relative standard
    # error of sqrt(2 / n); five of them.
    assert float(kernel.var()) == pytest.approx(2 / (9 * 64), rel=5 * math.sqrt(2 / kernel.size))


@pytest.mark.parametrize("name", ["batch", "group", "layer", "none"])
def test_parameters_and_statistics_are_float32_where_computation_is_bfloat16(name: Any) -> None:
    module = ConvNormAct(Layers.build(norm=name, activation="gelu", dtype="bfloat16", train=True), 8)
    y, variables = shapes(module, 2, 6, 6, 4)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_norm_none_leaves_one_bias_a_channel_and_nothing_else() -> None:
    module = norm_factory("none", train=True, dtype=jnp.float32)()
    assert isinstance(module, Bias)
    x = jnp.ones((2, 3, 3, 2))
    y: Any = module.apply({"params": {"bias": jnp.array([1.0, -2.0])}}, x)
    np.testing.assert_array_equal(y[0, 0, 0], [2, -1])
    assert jax.tree.map(jnp.shape, module.init(KEY, x)) == {"params": {"bias": (2,)}}


@pytest.mark.parametrize(("channels", "group"), [(256, 8), (16, 8), (12, 4), (10, 2), (7, 1), (4, 4)])
def test_group_norm_normalises_groups_of_gcd_channels_and_8(channels: int, group: int) -> None:
    x = 5 + jax.random.normal(KEY, (2, 6, 6, channels))
    y: Any = GroupNorm().init_with_output(KEY, x)[0]
    groups = np.asarray(y).reshape(2, 36, channels // group, group)
    # Epsilon is 1e-5 of a variance near one (at least 0.4 with 36 values) and shrinks the result by its half.
    np.testing.assert_allclose(groups.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(groups.var((1, 3)), 1, atol=3e-5)
    if group > 1:  # a single channel of a group is not normalised on its own
        assert np.abs(groups.mean(1)).max() > 1e-3


@pytest.mark.parametrize("name", ["batch", "group", "layer"])
def test_norms_keep_a_small_variance_around_a_large_mean(name: Any) -> None:
    # In one pass, E[x^2] - E[x]^2 subtracts 10^6 from 10^6 + 0.01, which float32 cannot tell apart.
    x = 1000 + 0.1 * jax.random.normal(KEY, (32, 8, 8, 16))
    y, _ = norm_factory(name, train=True, dtype=jnp.float32)().init_with_output(KEY, x)  # type: ignore[attr-defined]
    # Epsilon is 1e-3 of the variance; the values around 1000 are 6e-5 apart, 6e-4 of the deviation.
    assert float(jnp.var(y)) == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize(("rate", "train"), [(0.5, False), (0.0, True), (0.0, False)])
def test_drop_path_is_the_identity_in_evaluation_and_at_rate_zero(rate: float, train: bool) -> None:
    x = jax.random.normal(KEY, (4, 3, 3, 2))
    # No random stream is given: drawing from one would raise.
    np.testing.assert_array_equal(DropPath(rate, train).apply({}, x), x)


def test_drop_path_drops_whole_images_and_keeps_the_expectation() -> None:
    n, rate = 20_000, 0.3
    y = np.asarray(DropPath(rate, True).apply({}, jnp.ones((n, 2, 2, 3)), rngs={"dropout": KEY}))
    images = y.reshape(n, -1)
    assert (images == images[:, :1]).all()
    np.testing.assert_allclose(np.unique(images), [0, 1 / (1 - rate)], rtol=1e-6)
    # An image is 1 / keep with probability keep, else 0: its variance is rate / keep. Five standard errors.
    assert images[:, 0].mean() == pytest.approx(1, abs=5 * math.sqrt(rate / (1 - rate) / n))


def test_squeeze_excite_refuses_fewer_channels_than_it_divides_by() -> None:
    with pytest.raises(ValueError, match="cannot reduce 8 channels by 16"):
        shapes(SqueezeExcite(layers()), 1, 4, 4, 8)


def test_squeeze_excite_with_zero_weights_halves_its_input() -> None:
    x = jax.random.normal(KEY, (2, 4, 4, 16))
    module = SqueezeExcite(layers())
    zeros = jax.tree.map(jnp.zeros_like, module.init(KEY, x))
    np.testing.assert_array_equal(module.apply(zeros, x), x / 2)  # sigmoid(0) = 1/2
    assert jax.tree.map(jnp.shape, zeros["params"]["squeeze"]) == {"kernel": (1, 1, 16, 1), "bias": (1,)}


def test_classifier_head_gives_float32_logits_of_the_mean_pixel() -> None:
    x = jax.random.normal(KEY, (2, 4, 4, 3), jnp.bfloat16)
    head = ClassifierHead(3, train=False)
    params = {"dense": {"kernel": jnp.eye(3), "bias": jnp.array([1.0, 2.0, 3.0])}}
    logits: Any = head.apply({"params": params}, x)
    assert logits.dtype == jnp.float32
    # bfloat16 pixels averaged in float32: rounding far below bfloat16's 4e-3.
    mean = np.asarray(x, np.float64).mean((1, 2))
    np.testing.assert_allclose(logits, mean + np.array([1, 2, 3]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_classifier_head_drops_features_in_training_only(train: bool) -> None:
    params = {"dense": {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}}
    head = ClassifierHead(64, train, dropout=0.5)
    logits: Any = head.apply({"params": params}, jnp.ones((8, 2, 2, 64)), rngs={"dropout": KEY})
    # With the identity as its weights, the head shows its features: all of them, or doubled and about half.
    assert set(np.unique(logits)) == ({0.0, 2.0} if train else {1.0})


def test_drop_path_cannot_drop_everything() -> None:
    # A rate of 1 would divide by zero, and its gradient would be no number.
    with pytest.raises(ValueError, match=r"DropPath.s rate is 1\.0: it must be from 0 to below 1"):
        DropPath(1.0, train=True).apply({}, jnp.ones((2, 3)), rngs={"dropout": KEY})


def test_drop_block_drops_squares_of_single_images_and_keeps_the_mean() -> None:
    x = jnp.ones((64, 12, 12, 3))
    layer = DropBlock(0.2, size=3, train=True)
    y = np.asarray(layer.apply({}, x, rngs={"dropout": jax.random.key(0)}))
    assert (y == y[..., :1]).all()
    np.testing.assert_allclose(y.mean((1, 2, 3)), 1, rtol=1e-5)
    dropped = y[..., 0] == 0
    # Each dropped pixel lies in a dropped 3x3 square.
    squares = np.lib.stride_tricks.sliding_window_view(dropped, (3, 3), (1, 2)).all((-1, -2))
    covered = np.zeros_like(dropped)
    for n, row, column in np.argwhere(squares):
        covered[n, row : row + 3, column : column + 3] = True
    assert (covered == dropped).all()
    # 0.2 if blocks did not overlap: 1 - (1 - 0.032)^9 in the middle, less at borders. Of 64 images, +- 0.03.
    assert 0.15 < dropped.mean() < 0.2
    assert (np.asarray(DropBlock(0.2, size=3, train=False).apply({}, x)) == 1).all()
