"""Random changes of colour."""

import dataclasses

import jax
import jax.numpy as jnp

from convjax.data import operations
from convjax.data.operations import Name
from convjax.errors import require

_FACTORS: tuple[Name, ...] = ("brightness", "contrast", "colour")


@dataclasses.dataclass(frozen=True)
class ColourJitter:
    """Brightness, contrast and saturation times random factors, in random order; then hues turned.

    The factors are uniform from 1 - x to 1 + x, as torchvision has them, which turns hues somewhere among the others.
    """

    brightness: float = 0.0
    """x of the brightness, from 0 to 1; 0 switches it off."""
    contrast: float = 0.0
    """x of the contrast."""
    saturation: float = 0.0
    """x of the saturation."""
    hue: float = 0.0
    """Part of a whole turn, from 0 to 0.5, by which hues are at most turned, either way."""

    def __post_init__(self) -> None:
        for name, largest in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            value = getattr(self, name)
            require(0 <= value <= largest, f"data.augment.colour.{name}", value, f"from 0 to {largest:g}")

    def __call__(self, key: jax.Array, image: jax.Array) -> jax.Array:
        order, factors, turn = jax.random.split(key, 3)
        reach = (self.brightness, self.contrast, self.saturation)
        if any(reach):
            offsets = jax.random.uniform(factors, (3,), minval=-1, maxval=1) * jnp.array(reach)
            turns = jax.random.permutation(order, 3)
            for i in range(3):
                change = operations.chosen(_FACTORS, turns[i], image, offsets[turns[i]])
                image = operations.apply(change, image)
        if self.hue and image.shape[-1] == 3:
            image = turned(image, jax.random.uniform(turn, minval=-self.hue, maxval=self.hue))
        return image


def turned(image: jax.Array, turn: jax.Array | float) -> jax.Array:
    """Returns an image with its hues turned by a part of a whole turn: value and saturation stay as they are.

    Args:
        image: uint8 `[H, W, 3]`.
        turn: scalar; red becomes green at 1/3.
    """
    red, green, blue = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    high, low = jnp.maximum(jnp.maximum(red, green), blue), jnp.minimum(jnp.minimum(red, green), blue)
    spread = high - low
    safe = jnp.maximum(spread, 1)
    sixth = jnp.where(
        high == red, (green - blue) / safe, jnp.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    )
    # A channel is at its highest for two sixths about its own hue, at its lowest opposite, and rises in between.
    own = jnp.array([0.0, 2.0, 4.0])
    distance = jnp.abs((sixth[..., None] + 6 * turn - own + 3) % 6 - 3)
    return operations.truncated(high[..., None] - spread[..., None] * jnp.clip(distance - 1, 0, 1) + 0.5)
