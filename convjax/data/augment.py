"""Augmentation: pure functions of (key, image), run inside of the jitted step.

Each operation is a frozen dataclass whose strength can be set to nothing, so that an ablation can switch it
by one field; `Augment` applies them in order to every image of a batch, each with a key of its own.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from convjax.data.boxes import RandomErasing, RandomResizedCrop, inside
from convjax.data.colour import ColourJitter
from convjax.data.mixing import Mix, Targets
from convjax.data.policies import AugMix, AutoAugment, RandAugment, TrivialAugmentWide
from convjax.errors import check_choices, require

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
        require(self.padding >= 0, "data.augment.crop.padding", self.padding, "at least 0")

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
    alternate: bool = False
    """Whether this is drawn for an image's first epoch alone: in each later one it is as it was not in the one before
    (arXiv:2404.00498, section 3.6)."""

    def __post_init__(self) -> None:
        require(0 <= self.probability <= 1, "data.augment.flip.probability", self.probability, "from 0 to 1")
        right = "off while data.augment.flip.probability is 0"
        require(self.probability > 0 or not self.alternate, "data.augment.flip.alternate", self.alternate, right)

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.probability or self.alternate:
            return image
        return jnp.where(jax.random.bernoulli(key, self.probability), image[:, ::-1], image)

    @jax.named_scope("augment")
    def alternated(self, key: jax.Array, images: jax.Array, ids: jax.Array, epochs: jax.Array) -> jax.Array:
        """Mirrors images `[N, H, W, C]` if it is to `alternate`, for the step to call before all else.

        Args:
            key: the same at every step.
            images: of a batch.
            ids: which example or draw each is, `[N]`.
            epochs: the epoch of each, `[N]`.
        """
        first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), self.probability))(ids)
        return jnp.where((first ^ (epochs % 2 == 1))[:, None, None, None], images[:, :, ::-1], images)


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Sets a square at a random centre to 0 (DeVries and Taylor 2017, arXiv:1708.04552).

    The square may reach over the border, as in the paper.
    """

    size: int = 0
    """Side in pixels; 0 switches it off."""

    def __post_init__(self) -> None:
        require(self.size >= 0, "data.augment.cutout.size", self.size, "at least 0")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.size:
            return image
        height, width = image.shape[:2]
        row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
        start = jnp.stack([row, column]) - self.size // 2
        box = inside(image, start, jnp.array([self.size, self.size]))
        return jnp.where(box[..., None], jnp.zeros_like(image), image)


@dataclasses.dataclass(frozen=True)
class Augment:
    """All that is done to the images of a batch, in the order of the pipeline below; each operation is off by default.

    A crop to size, crop, flip, policies, colour, erasing and cutout; at last images are mixed with each other.
    """

    crop: RandomCrop = RandomCrop()
    flip: HorizontalFlip = HorizontalFlip()
    cutout: Cutout = Cutout()
    resized_crop: RandomResizedCrop = RandomResizedCrop()
    rand: RandAugment = RandAugment()
    trivial: TrivialAugmentWide = TrivialAugmentWide()
    auto: AutoAugment = AutoAugment()
    colour: ColourJitter = ColourJitter()
    augmix: AugMix = AugMix()
    erasing: RandomErasing = RandomErasing()
    mix: Mix = Mix()
    repeats: int = 1
    """How often each example is in a batch, each time augmented otherwise (Hoffer et al. 2019, arXiv:1901.09335)."""

    def __post_init__(self) -> None:
        require(self.repeats >= 1, "data.augment.repeats", self.repeats, "at least 1")

    @jax.named_scope("augment")
    def __call__(self, keys: jax.Array, images: jax.Array, size: int | None = None) -> jax.Array:
        """Augments each image of a batch by itself; `mix` is for the step to call, which has the labels.

        Args:
            keys: one key an image, `[N]`.
            images: uint8 `[N, H, W, C]`.
            size: side that images are brought to before all else; None keeps theirs.

        Returns:
            uint8 `[N, h, w, C]`.
        """

        def one(key: jax.Array, image: jax.Array) -> jax.Array:
            # By numbers of their own: a new operation leaves what the others draw as it was.
            image = self.resized_crop(jax.random.fold_in(key, 3), image, size)
            operations: tuple[tuple[int, Operation], ...] = (
                *((0, self.crop), (1, self.flip)),
                *((4, self.auto), (5, self.rand), (6, self.trivial), (7, self.augmix), (8, self.colour)),
                *((9, self.erasing), (2, self.cutout)),
            )
            for i, operation in operations:
                image = operation(jax.random.fold_in(key, i), image)
            return image

        return jax.vmap(one)(keys, images)

    def mixed(self, keys: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Targets]:
        """Mixes augmented images with each other; see `Mix`, keys are those of `__call__`."""
        return self.mix(jax.vmap(lambda key: jax.random.fold_in(key, 10))(keys), images, labels)
