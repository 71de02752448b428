"""The operations that augmentation policies choose from: the one table, with the numerics of Pillow on uint8.

Whatever an operation does is one of three things: pixels move (an affine map), values change one by one (a table of
256 for each channel), or the image is mixed with its own grey or smoothed version. So an image's operation is a few
numbers, a `Change`, and a batch in which each image has another operation costs no more than one in which all have the
same.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp

Name: TypeAlias = Literal[
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "auto_contrast",
    "equalize",
    "invert",
]
NAMES: tuple[Name, ...] = get_args(Name)


class Change(NamedTuple):
    """What is done to an image, in this order.

    Attributes:
        matrix: float32 `[2, 3]`: (column, row) of an output pixel's centre to where its value is looked up.
        table: float32 `[C, 256]`, what each value becomes, before it is truncated.
        colour: weight of the image against its grey version; 1 leaves it as it is.
        sharpness: weight of the image against its smoothed version, likewise.
    """

    matrix: jax.Array
    table: jax.Array
    colour: jax.Array
    sharpness: jax.Array


def identity(image: jax.Array, magnitude: jax.Array) -> Change:
    """Returns the change that changes nothing."""
    del magnitude
    table = jnp.broadcast_to(jnp.arange(256, dtype=jnp.float32), (image.shape[-1], 256))
    return Change(jnp.eye(2, 3), table, jnp.float32(1), jnp.float32(1))


def _moved(image: jax.Array, *matrix: jax.Array | float) -> Change:
    rows = jnp.stack([jnp.float32(entry) for entry in matrix]).reshape(2, 3)
    return identity(image, jnp.float32(0))._replace(matrix=rows)


def _looked_up(image: jax.Array, table: jax.Array) -> Change:
    plain = identity(image, jnp.float32(0))
    return plain._replace(table=jnp.broadcast_to(jnp.asarray(table, jnp.float32), plain.table.shape))


def _rotated(image: jax.Array, degrees: jax.Array) -> Change:
    """Turns about the centre, counter-clockwise."""
    row, column = image.shape[0] / 2, image.shape[1] / 2
    # Rounded to 20 bits, so that quarter turns are exact: there pixels may come from the edges of others.
    cos, sin = (jnp.round(f(jnp.deg2rad(degrees)) * 2**20) / 2**20 for f in (jnp.cos, jnp.sin))
    return _moved(image, cos, -sin, column - column * cos + row * sin, sin, cos, row - column * sin - row * cos)


def _posterized(image: jax.Array, bits: jax.Array) -> Change:
    """Keeps the upper bits of each value."""
    step = 2 ** (8 - jnp.int32(bits))
    return _looked_up(image, jnp.arange(256) // step * step)


def _solarized(image: jax.Array, threshold: jax.Array) -> Change:
    """Inverts the values that are at least the threshold."""
    values = jnp.arange(256)
    return _looked_up(image, jnp.where(values < threshold, values, 255 - values))


def _contrasted(image: jax.Array, magnitude: jax.Array) -> Change:
    """Moves values away from the rounded mean of the grey image."""
    pixels = image.shape[0] * image.shape[1]
    mean = (2 * grey(image).sum() + pixels) // (2 * pixels)
    return _looked_up(image, mean + (1 + magnitude) * (jnp.arange(256, dtype=jnp.float32) - mean))


def _auto_contrasted(image: jax.Array, magnitude: jax.Array) -> Change:
    """Stretches each channel's range of values to 0..255."""
    del magnitude
    low, high = (jnp.int32(f(image, (0, 1)))[:, None] for f in (jnp.min, jnp.max))
    values = jnp.arange(256)
    stretched = (values - low) * 255 // jnp.maximum(high - low, 1)
    return _looked_up(image, jnp.where(high > low, stretched, values))


def _equalized(image: jax.Array, magnitude: jax.Array) -> Change:
    """Makes each channel's values about equally frequent."""
    del magnitude
    channels = image.shape[-1]
    counts = jnp.zeros((channels, 256), jnp.int32).at[jnp.arange(channels), jnp.int32(image)].add(1)
    last = jnp.take_along_axis(counts, jnp.int32(image.max((0, 1)))[:, None], axis=1)
    step = (image.shape[0] * image.shape[1] - last) // 255
    below = jnp.cumsum(counts, axis=1) - counts
    return _looked_up(image, jnp.where(step > 0, (step // 2 + below) // jnp.maximum(step, 1), jnp.arange(256)))


OPERATIONS: dict[Name, Callable[[jax.Array, jax.Array], Change]] = {
    "identity": identity,
    "shear_x": lambda image, m: _moved(image, 1, m, 0, 0, 1, 0),
    "shear_y": lambda image, m: _moved(image, 1, 0, 0, m, 1, 0),
    "translate_x": lambda image, m: _moved(image, 1, 0, -jnp.trunc(m), 0, 1, 0),
    "translate_y": lambda image, m: _moved(image, 1, 0, 0, 0, 1, -jnp.trunc(m)),
    "rotate": _rotated,
    "brightness": lambda image, m: _looked_up(image, (1 + m) * jnp.arange(256, dtype=jnp.float32)),
    "colour": lambda image, m: identity(image, m)._replace(colour=1 + m),
    "contrast": _contrasted,
    "sharpness": lambda image, m: identity(image, m)._replace(sharpness=1 + m),
    "posterize": _posterized,
    "solarize": _solarized,
    "auto_contrast": _auto_contrasted,
    "equalize": _equalized,
    "invert": lambda image, _: _looked_up(image, 255 - jnp.arange(256)),
}
"""Each operation as a function of image and magnitude.

The magnitude is the tangent of a shear's angle; pixels, rightwards or downwards, of a translation; degrees; the factor
less 1 of brightness, colour, contrast and sharpness; bits kept; the least value that is inverted.
"""


def grey(image: jax.Array) -> jax.Array:
    """Returns the luma of an image, int32 `[H, W]`: ITU-R 601 in Pillow's fixed point; of one channel itself."""
    values = jnp.int32(image)
    if image.shape[-1] != 3:
        return values[..., 0]
    return (values @ jnp.array([19595, 38470, 7471]) + 0x8000) >> 16


def smoothed(image: jax.Array) -> jax.Array:
    """Returns the mean over 3x3 pixels of which the middle one counts five times, int32; borders stay as they are."""
    values = jnp.int32(image)
    rows = values[:-2] + values[1:-1] + values[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * values[1:-1, 1:-1]
    return values.at[1:-1, 1:-1].set((2 * total + 13) // 26)


def truncated(values: jax.Array) -> jax.Array:
    """Returns values as uint8: clipped, and what is behind the point cut off."""
    return jnp.clip(values, 0, 255).astype(jnp.uint8)


def mixed(base: jax.Array, image: jax.Array, weight: jax.Array) -> jax.Array:
    """Returns `base + weight * (image - base)` as uint8; the weight may be above 1."""
    return truncated(base + weight * (jnp.int32(image) - base))


def moved(image: jax.Array, matrix: jax.Array, fill: int) -> jax.Array:
    """Looks pixels up where `Change.matrix` says, the nearest ones; `fill` where there are none."""
    height, width = image.shape[:2]
    rows, columns = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    x, y = (jnp.floor(a * columns + b * rows + c).astype(jnp.int32) for a, b, c in matrix)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    found = image[jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)]
    return jnp.where(inside[..., None], found, jnp.uint8(fill))


def apply(change: Change, image: jax.Array, fill: int = 0) -> jax.Array:
    """Returns the changed image: uint8 `[H, W, C]` to the same."""
    image = moved(image, change.matrix, fill)
    image = truncated(change.table[jnp.arange(image.shape[-1]), jnp.int32(image)])
    if image.shape[-1] == 3:
        image = mixed(grey(image)[..., None], image, change.colour)
    return mixed(smoothed(image), image, change.sharpness)


def perform(name: Name, image: jax.Array, magnitude: float | jax.Array, fill: int = 0) -> jax.Array:
    """Returns an image after one operation: uint8 `[H, W, C]` to the same."""
    return apply(OPERATIONS[name](image, jnp.float32(magnitude)), image, fill)


def chosen(names: tuple[Name, ...], index: jax.Array, image: jax.Array, magnitude: jax.Array) -> Change:
    """Returns the change of the operation that an index into `names` chooses."""
    return jax.lax.switch(index, [OPERATIONS[name] for name in names], image, magnitude)
