"""Augmentation by random boxes: what is cut out of an image and enlarged, and what is erased from it."""

import dataclasses
import math
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from convjax.errors import check_choices, require

TRIES = 10
"""Boxes that are drawn until one fits, as torchvision does."""


def fitting(
    key: jax.Array, image: jax.Array, area: tuple[float, float], aspect: tuple[float, float]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns whether a box was found, and its height and width: the first of `TRIES` that is no larger than the image.

    Args:
        key: of the draws.
        image: `[H, W, C]`.
        area: least and largest share of the image's pixels, uniform.
        aspect: least and largest ratio of width to height, uniform in its logarithm.
    """
    height, width = image.shape[:2]
    areas, aspects = jax.random.split(key)
    pixels = height * width * jax.random.uniform(areas, (TRIES,), minval=area[0], maxval=area[1])
    ratio = jnp.exp(jax.random.uniform(aspects, (TRIES,), minval=math.log(aspect[0]), maxval=math.log(aspect[1])))
    rows, columns = jnp.round(jnp.sqrt(pixels / ratio)), jnp.round(jnp.sqrt(pixels * ratio))
    fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
    first = jnp.argmax(fits)
    return fits.any(), rows[first].astype(jnp.int32), columns[first].astype(jnp.int32)


def _require_box(field: str, min_area: float, max_area: float, max_aspect: float) -> None:
    right = f"above 0 and at most max_area {max_area}, which must be at most 1"
    require(0 < min_area <= max_area <= 1, f"{field}.min_area", min_area, right)
    require(max_aspect >= 1, f"{field}.max_aspect", max_aspect, "at least 1")


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
    """Cuts a random box out of the image and resizes it, bilinearly with antialiasing, to the image's size.

    Szegedy et al. 2014, arXiv:1409.4842, section 6. Where none of ten boxes fits, the largest centred one of an allowed
    aspect is taken.
    """

    min_area: float = 1.0
    """Least share of the image's pixels; 1 switches it off, the usual one is 0.08."""
    max_area: float = 1.0
    """Largest share."""
    max_aspect: float = 4 / 3
    """Largest ratio of the sides."""

    def __post_init__(self) -> None:
        _require_box("data.augment.resized_crop", self.min_area, self.max_area, self.max_aspect)

    def __call__(self, key: jax.Array, image: jax.Array, size: int | None = None) -> jax.Array:
        """Returns the crop, uint8 `[size, size, C]`; None gives the image's own size."""
        height, width = image.shape[:2]
        out = (size, size) if size else (height, width)
        if self.min_area == 1:
            return image if out == (height, width) else resized(image, (0, 0), (height, width), out)
        what, where = jax.random.split(key)
        found, *drawn = fitting(what, image, (self.min_area, self.max_area), (1 / self.max_aspect, self.max_aspect))
        longest = (min(height, int(width * self.max_aspect)), min(width, int(height * self.max_aspect)))
        sides = jnp.where(found, jnp.stack(drawn), jnp.array(longest))
        room = jnp.array([height, width]) - sides
        start = jnp.where(found, jax.random.randint(where, (2,), 0, room + 1), room // 2)
        return resized(image, start, sides, out)


def resized(image: jax.Array, start: object, sides: object, size: tuple[int, int]) -> jax.Array:
    """Returns a box of an image, resized to `size`, bilinearly with antialiasing: uint8 to uint8, rounded.

    Args:
        image: uint8 `[H, W, C]`.
        start: (row, column) of the box's first pixel; these and `sides` may be traced.
        sides: its (height, width).
        size: (height, width) of what is returned.
    """
    scale = jnp.array(size, jnp.float32) / jnp.asarray(sides)
    shape = (*size, image.shape[-1])
    values = image.astype(jnp.float32)
    # Not exactly what resizing the box alone would give: pixels beside it take part in those of its border.
    found = jax.image.scale_and_translate(values, shape, (0, 1), scale, -jnp.asarray(start) * scale, "linear")
    return jnp.clip(jnp.round(found), 0, 255).astype(jnp.uint8)


Erased: TypeAlias = Literal["black", "grey", "noise"]


@dataclasses.dataclass(frozen=True)
class RandomErasing:
    """Erases a random box inside of the image (Zhong et al. 2017, arXiv:1708.04896)."""

    probability: float = 0.0
    """Of erasing; 0 switches it off."""
    min_area: float = 0.02
    """Least share of the image's pixels."""
    max_area: float = 1 / 3
    """Largest share."""
    max_aspect: float = 10 / 3
    """Largest ratio of the sides."""
    value: Erased = "noise"
    """black: 0; grey: 128; noise: each value from a normal distribution of mean 127.5 and deviation 64, clipped."""

    def __post_init__(self) -> None:
        check_choices(self, "data.augment.erasing")
        require(0 <= self.probability <= 1, "data.augment.erasing.probability", self.probability, "from 0 to 1")
        _require_box("data.augment.erasing", self.min_area, self.max_area, self.max_aspect)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.probability:
            return image
        whether, what, where, noise = jax.random.split(key, 4)
        found, *drawn = fitting(what, image, (self.min_area, self.max_area), (1 / self.max_aspect, self.max_aspect))
        sides = jnp.stack(drawn)
        # Where no box fits, nothing is erased: what is drawn then does not matter.
        start = jax.random.randint(where, (2,), 0, jnp.maximum(jnp.array(image.shape[:2]) - sides, 0) + 1)
        erases = found & jax.random.bernoulli(whether, self.probability)
        if self.value == "noise":
            values = jnp.clip(127.5 + 64 * jax.random.normal(noise, image.shape), 0, 255).astype(jnp.uint8)
        else:
            values = jnp.full_like(image, 128 if self.value == "grey" else 0)
        return jnp.where(erases & inside(image, start, sides)[..., None], values, image)


def inside(image: jax.Array, start: jax.Array, sides: jax.Array) -> jax.Array:
    """Returns which pixels of an image lie in a box, `[H, W]`; the box may reach over the border."""
    rows, columns = (
        (jnp.arange(size) >= first) & (jnp.arange(size) < first + side)
        for size, first, side in zip(image.shape[:2], start, sides, strict=True)
    )
    return rows[:, None] & columns
