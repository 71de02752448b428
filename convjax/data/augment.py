"""Augmentation: pure functions of (key, image), run inside of the jitted step.

Each operation is a frozen dataclass whose strength can be set to nothing, so that an ablation can switch it
by one field; `Augment` applies them in order to every image of a batch, each with a key of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from convjax.errors import UsageError, check_choices

Operation: TypeAlias = Callable[[jax.Array, jax.Array], jax.Array]
"""A function of (key, image `[H, W, C]`) that returns an image of the same shape."""


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Shifts the image by up to `padding` pixels on each axis."""

    padding: int = 0
    """Pixels; 0 switches it off."""
    border: Literal["zeros", "reflect"] = "zeros"
    """What comes into view: zeros, or the image mirrored at its outermost pixels."""

    def __post_init__(self) -> None:
        check_choices(self, "data.augment.crop")
        if self.padding < 0:
            raise UsageError(f"data.augment.crop.padding is {self.padding}: it must be at least 0")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.padding:
            return image
        edges = ((self.padding, self.padding), (self.padding, self.padding), (0, 0))
        padded = jnp.pad(image, edges, mode="constant" if self.border == "zeros" else "reflect")
        top, left = jax.random.randint(key, (2,), 0, 2 * self.padding + 1)
        return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors the image left to right."""

    probability: float = 0.0
    """Of being mirrored; 0 switches it off."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise UsageError(f"data.augment.flip.probability is {self.probability}: it must be from 0 to 1")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.probability:
            return image
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Sets a square at a random centre to 0 (DeVries and Taylor 2017, arXiv:1708.04552).

    The square may reach over the border, as in the paper.
    """

    size: int = 0
    """Side in pixels; 0 switches it off."""

    def __post_init__(self) -> None:
        if self.size < 0:
            raise UsageError(f"data.augment.cutout.size is {self.size}: it must be at least 0")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.size:
            return image
        height, width = image.shape[:2]
        row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
        top, left = row - self.size // 2, column - self.size // 2
        rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
        inside = (rows >= top) & (rows < top + self.size) & (columns >= left) & (columns < left + self.size)
        return jnp.where(inside, jnp.zeros_like(image), image)


@dataclasses.dataclass(frozen=True)
class Augment:
    """Crop, flip and cutout, in this order."""

    crop: RandomCrop = RandomCrop()
    flip: HorizontalFlip = HorizontalFlip()
    cutout: Cutout = Cutout()

    @jax.named_scope("augment")
    def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """Augments a batch.

        Args:
            keys: one key an image, `[N]`.
            images: uint8 `[N, H, W, C]`.

        Returns:
            uint8 `[N, H, W, C]`.
        """

        def one(key: jax.Array, image: jax.Array) -> jax.Array:
            operations: tuple[Operation, ...] = (self.crop, self.flip, self.cutout)
            for i, operation in enumerate(operations):
                image = operation(jax.random.fold_in(key, i), image)
            return image

        return jax.vmap(one)(keys, images)
