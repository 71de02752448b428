"""Random parts of training images: inside of the image, of the area and shape asked for, the same for all workers."""

import io
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convjax.data.images import EncodedImage
from convjax.data.random_crop import ResizedCrop, cut
from convjax.errors import UsageError

IMAGENET = ResizedCrop((0.08, 1.0))


def png(pixels: np.ndarray) -> EncodedImage:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return EncodedImage.read(file.getvalue(), "photo")


@given(
    st.integers(4, 3000), st.integers(4, 3000), st.integers(0, 2**32 - 1), st.integers(0, 10**4), st.integers(0, 10**7)
)
def test_a_part_lies_inside_of_its_image(height: int, width: int, seed: int, epoch: int, example: int) -> None:
    left, top, right, bottom = box = IMAGENET.box(height, width, seed, epoch, example)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert box == IMAGENET.box(height, width, seed, epoch, example)


def test_shares_of_the_area_and_shapes_are_drawn_as_published() -> None:
    """Where all fits: the share is uniform, the logarithm of the shape too; places are uniform over those possible."""
    crop, side = ResizedCrop((0.08, 0.5)), 100_000
    boxes = np.array([crop.box(side, side, 7, epoch, example) for epoch in range(20) for example in range(100)])
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    shapes = np.log(width / height) / math.log(4 / 3)
    uniform = {
        "share": (width * height / side**2 - 0.08) / 0.42,
        "shape": (shapes + 1) / 2,
        "left": boxes[:, 0] / (side - width),
        "top": boxes[:, 1] / (side - height),
    }
    for name, values in uniform.items():
        assert scipy.stats.kstest(values, "uniform").pvalue > 0.01, name
    assert np.abs(np.corrcoef(list(uniform.values()))[np.triu_indices(4, 1)]).max() < 0.06, "independent of each other"


def test_seed_epoch_and_example_decide_each() -> None:
    boxes = {IMAGENET.box(375, 500, *key) for key in ((1, 2, 3), (0, 2, 3), (1, 3, 3), (1, 2, 4))}
    assert len(boxes) == 4


def test_an_image_in_which_nothing_fits_shows_its_centre() -> None:
    # torchvision: a shape out of bounds is brought to the nearest bound: here 4:3 of a height of 30.
    assert ResizedCrop((0.9, 1.0)).box(30, 600, 0, 0, 0) == (280, 0, 320, 30)
    assert ResizedCrop((0.9, 1.0)).box(600, 30, 0, 0, 0) == (0, 280, 30, 320)


def test_a_part_that_shrinks_by_a_whole_number_shows_means() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    found = cut(png(pixels), (10, 20, 46, 50), (10, 12), 3)
    expected = pixels[20:50, 10:46].reshape(10, 3, 12, 3, 3).mean(axis=(1, 3))
    assert np.abs(found - expected).max() <= 0.51


def test_a_part_of_the_size_asked_for_is_cut_out_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80)).astype(np.uint8)
    np.testing.assert_array_equal(cut(png(pixels), (10, 20, 42, 52), (32, 32), 1)[..., 0], pixels[20:52, 10:42])


def test_a_part_that_grows_keeps_a_slope() -> None:
    slope = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8), (40, 60)).copy()
    found = cut(png(slope), (10, 10, 30, 30), (40, 40), 1)[..., 0]
    inner = found[:, 2:-2].astype(int)
    # 4 a pixel, twice as many pixels: 2 each.
    assert set(np.diff(inner, axis=1).ravel()) == {2}


def test_a_jpeg_is_shrunk_in_decoding_to_the_same_part() -> None:
    slopes = np.add.outer(np.arange(640), np.arange(800)) * (255 / 1438)
    file = io.BytesIO()
    Image.fromarray(slopes.astype(np.uint8)).save(file, "JPEG", quality=95)
    image, box = EncodedImage.read(file.getvalue(), "photo"), (101, 53, 741, 613)
    assert image.pixels(1, min(560 / 70, 640 / 80))[1] == 8
    found = cut(image, box, (70, 80), 1)[..., 0]
    # The mean of a slope over a pixel is its value in the pixel's middle.
    rows, columns = 53 + (np.arange(70) + 0.5) * 8, 101 + (np.arange(80) + 0.5) * 8
    expected = np.add.outer(rows, columns) * (255 / 1438)
    assert np.abs(found - expected).max() < 3.5, "up to 7 pixels of rounding to blocks, at 255 / 1438 a pixel, and 1.5"


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"area": (0.0, 1.0)}, "area"), ({"area": (0.5, 0.2)}, "area"), ({"ratio": (0.0, 1.0)}, "ratio")],
)
def test_wrong_bounds_are_named(fields: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(UsageError, match=rf"data\.resized_crop\.{message} is"):
        ResizedCrop(**fields)
