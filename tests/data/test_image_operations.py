"""Each image operation against Pillow, value for value."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from convjax.data import operations
from convjax.data.operations import NAMES, Name

RNG = np.random.default_rng(0)
SMOOTH = 3 * np.arange(17)[None, :, None] + RNG.normal(100, 40, (12, 17, 3))
COLOUR = np.clip(SMOOTH, 20, 235).astype(np.uint8)
GREY = COLOUR[..., :1]
Pillow = Callable[[Image.Image, float], Image.Image]


def affine(*matrix: Callable[[float], float] | float) -> Pillow:
    def moved(image: Image.Image, m: float) -> Image.Image:
        rows = tuple(entry(m) if callable(entry) else entry for entry in matrix)
        return image.transform(image.size, Image.Transform.AFFINE, rows)

    return moved


PILLOW: dict[Name, Pillow] = {
    "identity": lambda image, m: image,
    "shear_x": affine(1, lambda m: m, 0, 0, 1, 0),
    "shear_y": affine(1, 0, 0, lambda m: m, 1, 0),
    "translate_x": affine(1, 0, lambda m: -int(m), 0, 1, 0),
    "translate_y": affine(1, 0, 0, 0, 1, lambda m: -int(m)),
    "rotate": lambda image, m: image.rotate(m),
    "brightness": lambda image, m: ImageEnhance.Brightness(image).enhance(1 + m),
    "colour": lambda image, m: ImageEnhance.Color(image).enhance(1 + m),
    "contrast": lambda image, m: ImageEnhance.Contrast(image).enhance(1 + m),
    "sharpness": lambda image, m: ImageEnhance.Sharpness(image).enhance(1 + m),
    "posterize": lambda image, m: ImageOps.posterize(image, int(m)),
    "solarize": lambda image, m: ImageOps.solarize(image, math.ceil(m)),
    "auto_contrast": lambda image, m: ImageOps.autocontrast(image),
    "equalize": lambda image, m: ImageOps.equalize(image),
    "invert": lambda image, m: ImageOps.invert(image),
}
MAGNITUDES = {"posterize": (2, 7), "solarize": (0, 100.5), "rotate": (17.0, 90.0, -101.0), "translate_x": (3.7, -5.0)}


@jax.jit
def performed(index: jax.Array, image: jax.Array, magnitude: jax.Array) -> jax.Array:
    # One program for all operations.
    return operations.apply(operations.chosen(NAMES, index, image, magnitude), image)


@pytest.mark.parametrize("image", [COLOUR, GREY], ids=["colour", "grey"])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_is_pillows_exactly(name: Name, image: NDArray[np.uint8]) -> None:
    assert set(PILLOW) == set(NAMES) == set(operations.OPERATIONS)
    theirs = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    for magnitude in MAGNITUDES.get(name, (0.3, -0.77)):
        expected = np.asarray(PILLOW[name](theirs, magnitude)).reshape(image.shape)
        ours = np.asarray(performed(NAMES.index(name), image, np.float32(magnitude)))
        # An image and its magnitudes at which no rounding differs, though Pillow computes some tables in float64.
        np.testing.assert_array_equal(ours, expected)


def test_what_comes_into_view_has_the_colour_that_is_asked_for() -> None:
    found: Any = operations.perform("translate_x", jnp.asarray(COLOUR), 4.0, fill=128)
    assert (found[:, :4] == 128).all()
    assert (found[:, 4:] == COLOUR[:, :-4]).all()


def test_images_of_one_value_are_neither_stretched_nor_equalised() -> None:
    flat = np.full((12, 17, 3), 77, np.uint8)
    for name in ("auto_contrast", "equalize"):
        assert (performed(NAMES.index(name), flat, np.float32(0)) == 77).all()
