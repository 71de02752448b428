"""Policies: which of the image operations an image gets, and how strongly.

Magnitudes follow torchvision, which has the papers' ranges; `strength` below is a share of them. Each image draws for
itself. All pixels that come into view are black, or grey (128).
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from convjax.data import operations
from convjax.data.autoaugment import POLICIES, PolicyName
from convjax.data.operations import Name
from convjax.errors import check_choices, require

Fill: TypeAlias = Literal["black", "grey"]
FILLS: dict[Fill, int] = {"black": 0, "grey": 128}

SIGNED: frozenset[Name] = frozenset(
    (
        *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
        *("brightness", "colour", "contrast", "sharpness"),
    )
)
"""Operations whose magnitude is as often negative."""

_LARGEST: Mapping[Name, float] = MappingProxyType(
    {
        **dict.fromkeys(("shear_x", "shear_y"), 0.3),
        **dict.fromkeys(("translate_x", "translate_y"), 150 / 331),  # of the image's side
        "rotate": 30.0,
        **dict.fromkeys(("brightness", "colour", "contrast", "sharpness"), 0.9),
        "posterize": 4.0,  # bits taken away
    }
)
"""Magnitude at full strength, as RandAugment and AutoAugment have it."""
_WIDE: Mapping[Name, float] = MappingProxyType(
    {
        **dict.fromkeys(("shear_x", "shear_y"), 0.99),
        **dict.fromkeys(("translate_x", "translate_y"), 32.0),  # pixels
        "rotate": 135.0,
        **dict.fromkeys(("brightness", "colour", "contrast", "sharpness"), 0.99),
        "posterize": 6.0,
    }
)
"""Magnitude at full strength, as TrivialAugment has it in its wide space."""
RANDOM: tuple[Name, ...] = tuple(name for name in operations.NAMES if name != "invert")
"""What RandAugment and TrivialAugment choose from."""
_MIXED: tuple[Name, ...] = tuple(name for name in RANDOM if name != "identity")


def magnitudes(
    image: jax.Array, strength: jax.Array, space: Mapping[Name, float], names: tuple[Name, ...]
) -> jax.Array:
    """Returns the magnitude of each of the named operations for an image, without sign.

    Args:
        image: whose sides matter.
        strength: scalar from 0 to 1.
        space: magnitude at strength 1; a translation below 1 is a share of the side.
        names: operations.
    """

    def one(name: Name) -> jax.Array:
        if name == "solarize":
            return 255 * (1 - strength)
        if name == "posterize":
            return 8 - jnp.round(space[name] * strength)
        if name in ("translate_x", "translate_y") and space[name] < 1:
            return strength * space[name] * image.shape[1 if name == "translate_x" else 0]
        return strength * space[name] if name in space else jnp.zeros_like(strength)

    return jnp.stack([one(name) for name in names])


def _random(
    key: jax.Array,
    image: jax.Array,
    strength: jax.Array,
    space: Mapping[Name, float],
    names: tuple[Name, ...],
    fill: Fill,
) -> jax.Array:
    """Applies one of the operations, all equally likely, to an image."""
    which, sign = jax.random.split(key)
    index = jax.random.randint(which, (), 0, len(names))
    signed = jnp.array([name in SIGNED for name in names])[index] & jax.random.bernoulli(sign)
    magnitude = magnitudes(image, strength, space, names)[index] * jnp.where(signed, -1, 1)
    return operations.apply(operations.chosen(names, index, image, magnitude), image, FILLS[fill])


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Some random operations, one after the other, of one magnitude (Cubuk et al. 2019, arXiv:1909.13719).

    The operations and their ranges are torchvision's, with 31 magnitudes. timm counts magnitudes up to 10, applies each
    operation with probability 0.5 and lets the magnitude deviate: its rand-m9-mstd0.5 is about
    `RandAugment(2, 27, 1.5, 0.5)`.
    """

    operations: int = 0
    """Operations an image; 0 switches it off."""
    magnitude: float = 9.0
    """From 0 to 30, the largest."""
    deviation: float = 0.0
    """Standard deviation of the magnitude, which is drawn for each image and operation."""
    probability: float = 1.0
    """Of applying each of the operations."""
    fill: Fill = "black"
    """What comes into view where pixels move."""

    def __post_init__(self) -> None:
        check_choices(self, "data.augment.rand")
        require(self.operations >= 0, "data.augment.rand.operations", self.operations, "at least 0")
        require(0 <= self.magnitude <= 30, "data.augment.rand.magnitude", self.magnitude, "from 0 to 30")
        require(self.deviation >= 0, "data.augment.rand.deviation", self.deviation, "at least 0")
        require(0 <= self.probability <= 1, "data.augment.rand.probability", self.probability, "from 0 to 1")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        for own in jax.random.split(key, self.operations) if self.operations else ():
            what, noise, whether = jax.random.split(own, 3)
            magnitude = self.magnitude + self.deviation * jax.random.normal(noise)
            after = _random(what, image, jnp.clip(magnitude / 30, 0, 1), _LARGEST, RANDOM, self.fill)
            image = jnp.where(jax.random.bernoulli(whether, self.probability), after, image)
        return image


@dataclasses.dataclass(frozen=True)
class TrivialAugmentWide:
    """One random operation of a random magnitude (Müller and Hutter 2021, arXiv:2103.10158)."""

    probability: float = 0.0
    """Of applying it; the paper's is 1, 0 switches it off."""
    fill: Fill = "black"
    """What comes into view where pixels move."""

    def __post_init__(self) -> None:
        check_choices(self, "data.augment.trivial")
        require(0 <= self.probability <= 1, "data.augment.trivial.probability", self.probability, "from 0 to 1")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.probability:
            return image
        what, size, whether = jax.random.split(key, 3)
        strength = jax.random.randint(size, (), 0, 31) / 30
        after = _random(what, image, strength, _WIDE, RANDOM, self.fill)
        return jnp.where(jax.random.bernoulli(whether, self.probability), after, image)


@dataclasses.dataclass(frozen=True)
class AutoAugment:
    """One of the pairs of operations that were found for a data set (Cubuk et al. 2018, arXiv:1805.09501)."""

    policy: PolicyName = "none"
    """The data set; none switches it off."""
    fill: Fill = "black"
    """What comes into view where pixels move."""

    def __post_init__(self) -> None:
        check_choices(self, "data.augment.auto")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if self.policy == "none":
            return image
        pairs = POLICIES[self.policy]
        which, *keys = jax.random.split(key, 3)
        index = jax.random.randint(which, (), 0, len(pairs))
        for half, own in enumerate(keys):
            names, probabilities, strengths = zip(*(pair[half] for pair in pairs), strict=True)
            whether, sign = jax.random.split(own)
            flip = jnp.where(jax.random.bernoulli(sign), -1, 1)
            numbers = jnp.array([operations.NAMES.index(name) for name in names])[index]
            every = magnitudes(image, jnp.array(strengths)[index] / 9, _LARGEST, operations.NAMES)
            signed = jnp.array([name in SIGNED for name in operations.NAMES])
            magnitude = jnp.where(signed, flip * every, every)[numbers]
            change = operations.chosen(operations.NAMES, numbers, image, magnitude)
            after = operations.apply(change, image, FILLS[self.fill])
            image = jnp.where(jax.random.bernoulli(whether, jnp.array(probabilities)[index]), after, image)
        return image


@dataclasses.dataclass(frozen=True)
class AugMix:
    """The image mixed with chains of random operations on it (Hendrycks et al. 2019, arXiv:1912.02781).

        m x + (1 - m) sum_i w_i chain_i(x),  m ~ Beta(alpha, alpha),  w ~ Dirichlet(alpha, ..., alpha)

    Each chain has 1 to 3 operations, each of a magnitude drawn up to the severity. The paper's consistency loss between
    several such images is not part of it.
    """

    severity: float = 0.0
    """Up to which share of full strength operations go, in tenths: the paper's is 3, 0 switches it off."""
    width: int = 3
    """Chains."""
    alpha: float = 1.0
    """Of the distributions of the weights."""
    fill: Fill = "black"
    """What comes into view where pixels move."""

    def __post_init__(self) -> None:
        check_choices(self, "data.augment.augmix")
        require(0 <= self.severity <= 10, "data.augment.augmix.severity", self.severity, "from 0 to 10")
        require(self.width >= 1, "data.augment.augmix.width", self.width, "at least 1")
        require(self.alpha > 0, "data.augment.augmix.alpha", self.alpha, "above 0")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        if not self.severity:
            return image
        share, shares, *keys = jax.random.split(key, 2 + self.width)
        kept = jax.random.beta(share, self.alpha, self.alpha)
        weights = jax.random.dirichlet(shares, jnp.full(self.width, self.alpha))
        total = kept * image.astype(jnp.float32)
        for weight, own in zip(weights, keys, strict=True):
            total += (1 - kept) * weight * self._chain(own, image)
        return operations.truncated(total + 0.5)

    def _chain(self, key: jax.Array, image: jax.Array) -> jax.Array:
        length, *keys = jax.random.split(key, 4)
        depth = jax.random.randint(length, (), 1, 4)
        for i, own in enumerate(keys):
            what, size = jax.random.split(own)
            strength = jax.random.uniform(size, maxval=self.severity / 10)
            after = _random(what, image, strength, _LARGEST, _MIXED, self.fill)
            image = jnp.where(i < depth, after, image)
        return image
