"""Images mixed with each other, and their labels with them: mixup and CutMix."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from convjax.data.boxes import inside
from convjax.errors import require


class Targets(NamedTuple):
    """What the network should say of each image.

    Attributes:
        first: int32 `[N]`, a class.
        second: int32 `[N]`, another.
        share: float32 `[N]`, how much of the image is of the first.
    """

    first: jax.Array
    second: jax.Array
    share: jax.Array

    @classmethod
    def of(cls, labels: jax.Array) -> "Targets":
        """Returns the targets of images that are not mixed."""
        return cls(labels, labels, jnp.ones(labels.shape))

    @property
    def main(self) -> jax.Array:
        """int32 `[N]`, the class of the larger share."""
        return jnp.where(self.share >= 0.5, self.first, self.second)

    def soft(self, classes: int, smoothing: float) -> jax.Array:
        """Returns the target of each class, `[N, K]`: shares, of which `smoothing` is spread over all classes alike."""
        share = self.share[:, None]
        mixed = share * jax.nn.one_hot(self.first, classes) + (1 - share) * jax.nn.one_hot(self.second, classes)
        return (1 - smoothing) * mixed + smoothing / classes


@dataclasses.dataclass(frozen=True)
class Mix:
    """Each image mixed with its neighbour in the batch: by weights, or by a box out of it.

    mixup (Zhang et al. 2017, arXiv:1710.09412) takes `m x + (1 - m) x'`; CutMix (Yun et al. 2019, arXiv:1905.04899)
    takes a box of the share `1 - m` of the pixels, at a random place, from the neighbour. m is drawn from
    Beta(alpha, alpha) for each image. Images 2k and 2k + 1 of a batch are each other's neighbours: so they lie on the
    same device, and what an image becomes does not depend on how the batch is divided.
    """

    mixup: float = 0.0
    """alpha of mixup; 0 switches it off."""
    cutmix: float = 0.0
    """alpha of CutMix; 0 switches it off."""
    switch: float = 0.5
    """Share of images that CutMix mixes, where both are on."""
    probability: float = 1.0
    """Of mixing an image at all."""

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            require((value := getattr(self, name)) >= 0, f"data.augment.mix.{name}", value, "at least 0")
        for name in ("switch", "probability"):
            require(0 <= (value := getattr(self, name)) <= 1, f"data.augment.mix.{name}", value, "from 0 to 1")

    @property
    def on(self) -> bool:
        return bool((self.mixup or self.cutmix) and self.probability)

    def __call__(self, keys: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Targets]:
        """Mixes a batch.

        Args:
            keys: one key an image, `[N]`.
            images: uint8 `[N, H, W, C]`, N even.
            labels: int32 `[N]`.

        Returns:
            images, float32 where they are mixed, in the same units; and their targets.
        """
        if not self.on:
            return images, Targets.of(labels)
        others, other_labels = (_neighbours(x) for x in (images, labels))
        mixed, share = jax.vmap(self._pair)(keys, images.astype(jnp.float32), others.astype(jnp.float32))
        return mixed, Targets(labels, other_labels, share)

    def _pair(self, key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        whether, which, weight, area, where = jax.random.split(key, 5)
        height, width = image.shape[:2]
        blended, cut = image, image
        share = kept = jnp.float32(1)
        if self.mixup:
            share = jax.random.beta(weight, self.mixup, self.mixup)
            blended = share * image + (1 - share) * other
        if self.cutmix:
            drawn = jax.random.beta(area, self.cutmix, self.cutmix)
            sides = (jnp.array([height, width]) * jnp.sqrt(1 - drawn)).astype(jnp.int32)
            centre = jax.random.randint(where, (2,), 0, jnp.array([height, width]))
            # The box may reach over the border: what counts is what is left of it.
            box = inside(image, centre - sides // 2, sides)
            cut, kept = jnp.where(box[..., None], other, image), 1 - box.mean()
        both = self.mixup and self.cutmix
        cuts = jax.random.bernoulli(which, self.switch) if both else jnp.bool_(bool(self.cutmix))
        mixes = jax.random.bernoulli(whether, self.probability)
        mixed = jnp.where(mixes, jnp.where(cuts, cut, blended), image)
        return mixed, jnp.where(mixes, jnp.where(cuts, kept, share), 1.0)


def _neighbours(x: jax.Array) -> jax.Array:
    """Returns a batch with elements 2k and 2k + 1 in each other's places."""
    return x.reshape(-1, 2, *x.shape[1:])[:, ::-1].reshape(x.shape)
