import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convjax.errors import UsageError
from convjax.explore.operations import KERNELS, Convolution, Normalisation, Pooling, pixels

RANDOM = np.random.default_rng(0)
COLOURS = Image.fromarray(RANDOM.integers(0, 256, (12, 16, 3), np.uint8))


def convolution(name: str = "Sobel x", **fields: Any) -> Convolution:
    return Convolution([list(row) for row in KERNELS[name]], **fields)


@pytest.mark.parametrize("name", KERNELS)
def test_a_view_is_the_sum_of_products_with_each_window(name: str) -> None:
    view = convolution(name)(COLOURS)
    grey = np.asarray(COLOURS.convert("L"), np.float64) / 255
    kernel = np.array(KERNELS[name])
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(grey, len(kernel) // 2), kernel.shape)
    expected = (windows * kernel).sum((2, 3))
    np.testing.assert_allclose(view.input[..., 0], grey, rtol=1e-6)
    np.testing.assert_allclose(view.output[..., 0], expected, atol=2e-6)


def test_kernels_keep_brightness_or_see_only_changes() -> None:
    sums = {name: np.sum(kernel) for name, kernel in KERNELS.items()}
    changes = {"Sobel x", "Sobel y", "Laplacian"}
    for name, total in sums.items():
        assert total == pytest.approx(0 if name in changes else 1, abs=1e-12), name


def test_sobel_y_is_sobel_x_of_the_image_on_its_side() -> None:
    side = COLOURS.transpose(Image.Transpose.TRANSPOSE)
    np.testing.assert_allclose(
        convolution("Sobel y")(COLOURS).output[..., 0], convolution()(side).output[..., 0].T, atol=1e-6
    )


def test_all_three_channels_are_summed() -> None:
    each = [convolution(channel=channel, dilation=2)(COLOURS).output for channel in ("red", "green", "blue")]
    together = convolution(channel="all", dilation=2)(COLOURS)
    assert together.input.shape == (12, 16, 3)
    np.testing.assert_allclose(together.output, sum(each), atol=2e-6)


def test_an_image_is_reduced_by_means_and_never_enlarged() -> None:
    reduced = pixels(COLOURS, "red", 8)
    blocks = np.asarray(COLOURS, np.float64)[..., 0].reshape(6, 2, 8, 2).mean((1, 3)) / 255
    np.testing.assert_allclose(reduced[..., 0], blocks, atol=1.01 / 255)  # rounded to 8 bits by row, then by column
    assert pixels(COLOURS, "grey", 128).shape == (12, 16, 1)
    assert pixels(Image.new("L", (400, 4)), "grey", 8).shape == (1, 8, 1)


@pytest.mark.parametrize(("padding", "size"), [("SAME", (6, 8)), ("VALID", (4, 6)), (3, (7, 9))])
def test_padding_and_stride_give_the_size_of_the_formula(padding: Any, size: tuple[int, int]) -> None:
    view = convolution("Gaussian blur", padding=padding, stride=2)(COLOURS)
    assert view.output.shape == (*size, 1)
    assert [(length + sum(pads) - 5) // 2 + 1 for length, pads in zip((12, 16), view.pads, strict=True)] == list(size)


def test_pooling_takes_maximum_or_mean() -> None:
    x = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)[..., None]
    assert Pooling("max", 2, 1)(x).output[..., 0].tolist() == [[5, 6], [8, 9]]
    assert Pooling("average", 2, 1)(x).output[..., 0].tolist() == [[3, 4], [6, 7]]
    # With a pixel of padding on every side, the first window holds 1 alone: a quarter of it, or all of it.
    assert Pooling("average", 2, 2, 1)(x).output[0, 0, 0] == 0.25
    assert Pooling("average inside", 2, 2, 1)(x).output[0, 0, 0] == 1


def test_batch_norm_in_training_gives_bias_and_scale_as_mean_and_deviation() -> None:
    x = RANDOM.normal(5, 3, (20, 20, 1)).astype(np.float32)
    y, mean, variance = Normalisation(scale=2, bias=-1)(x)
    np.testing.assert_allclose((y.mean(), y.std()), (-1, 2), rtol=1e-5)
    np.testing.assert_allclose((mean, variance), (x.mean(), x.var()), rtol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_running_statistics_come_nearer_to_the_batchs_by_a_tenth_a_step(steps: int) -> None:
    x = RANDOM.normal(5, 3, (20, 20, 1)).astype(np.float32)
    y, mean, variance = Normalisation(train=False, steps=steps)(x)
    left = 0.9**steps
    assert mean == pytest.approx((1 - left) * x.mean(), rel=1e-5)
    assert variance == pytest.approx(left + (1 - left) * x.var(), rel=1e-5)
    np.testing.assert_allclose(y, (x - mean) / math.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolution([[1.0]]), "3 to 7 of them"),
        (lambda: Convolution([[0.0] * 3] * 4), "as many columns as rows"),
        (lambda: Convolution([[0.0] * 8] * 8), "3 to 7"),
        (lambda: Convolution([[0.0] * 3] * 2 + [[0, 0, math.nan]]), "a number between"),
        (lambda: Convolution([[0.0] * 3] * 2 + [[0, 0, True]]), "a number between"),
        (lambda: convolution(side=4096), "side is 4096"),
        (lambda: convolution(channel="alpha"), "channel is 'alpha'"),
        (lambda: convolution(padding=10**9), "padding is 1000000000: it must be at most 64"),
        (lambda: Pooling("max", 2, 2, 10**9), "padding is 1000000000"),
        (lambda: Pooling("median"), "kind is 'median'"),  # type: ignore[arg-type]
        (lambda: Normalisation(steps=10**9), "steps is 1000000000"),
        (lambda: Normalisation(scale=math.inf), "scale is inf"),
        (lambda: Normalisation(train="no"), "train is 'no'"),  # type: ignore[arg-type]
    ],
)
def test_what_would_make_no_sense_or_take_for_ever_is_refused(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
