"""Test-time augmentation: a network's logits averaged over several views of an image."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

Views: TypeAlias = Literal["plain", "flip", "flip_shift"]


def averaged(logits: Callable[[jax.Array], jax.Array], images: jax.Array, views: Views) -> jax.Array:
    """Returns the logits `[N, K]` of images `[N, H, W, C]`, averaged over views.

    `flip` is the mean over the image and its mirror image. `flip_shift` is half of that, and a quarter each of the same
    for the image moved by one pixel up and left, and down and right; what comes into view is reflected. So does
    airbench (arXiv:2404.00498, section 3.5) for images of 32 x 32 pixels.
    """

    def mirrored(images: jax.Array) -> jax.Array:
        return (logits(images) + logits(images[:, :, ::-1])) / 2

    if views == "plain":
        return logits(images)
    if views == "flip":
        return mirrored(images)
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    moved = (mirrored(padded[:, 2:, 2:]) + mirrored(padded[:, :-2, :-2])) / 2
    return (mirrored(images) + moved) / 2
