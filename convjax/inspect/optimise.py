"""Images made by optimisation: what a channel would like to see most."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.errors import UsageError
from convjax.inspect.features import output_of


def optimised(
    model: nn.Module,
    variables: Mapping[str, Any],
    normalise: Callable[[jax.Array], jax.Array],
    image: tuple[int, int, int],
    part: str,
    channels: Sequence[int],
    *,
    steps: int = 256,
    rate: float = 0.05,
    jitter: int | None = None,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Returns an image for each channel of a layer that excites it, float32 `[channels, height, width, C]` from 0 to 1.

    Gradient ascent on the channel's mean over the layer's places. The image is the sigmoid of a sum of waves whose
    amplitudes fall with their frequency, and is shifted at random at each step: so no single pixel can shout.
    Source: Olah, Mordvintsev and Schubert 2017, "Feature visualization", Distill, sections "preconditioning" and
    "transformation robustness".

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        normalise: turns images of values from 0 to 255 into what the network takes.
        image: (height, width, channels).
        part: the layer's name in `convjax.features`.
        channels: of the layer.
        steps: of the ascent.
        rate: root mean square of each step, in units of a wave's share.
        jitter: pixels by which an image is shifted at most, along each axis; None takes a sixteenth of the image.
        seed: of the image to begin with, and of the shifts.

    Raises:
        UsageError: there is no such layer or channel.
    """
    height, width, colours = image
    sample = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    units = jax.eval_shape(lambda v, x: output_of(model, v, x, part), dict(variables), sample).shape[-1]
    if wrong := [channel for channel in channels if not 0 <= channel < units]:
        raise UsageError(f"there is no channel {wrong[0]} of {part!r}: it has the channels from 0 to {units - 1}")
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    scale = jnp.asarray(1 / np.maximum(frequencies, 1 / max(height, width)))[..., None]
    reach = max(1, min(height, width) // 16) if jitter is None else jitter
    which = jnp.asarray(channels)

    def draw(waves: jax.Array) -> jax.Array:
        spectrum = (waves[..., 0] + 1j * waves[..., 1]) * scale
        return nn.sigmoid(jnp.fft.irfft2(spectrum, (height, width), axes=(1, 2), norm="ortho"))

    def total(waves: jax.Array, variables: Any, shift: jax.Array) -> jax.Array:
        shifted = jnp.roll(draw(waves), shift, axis=(1, 2))
        outputs = output_of(model, variables, normalise(255 * shifted), part).astype(jnp.float32)
        means = outputs.reshape(len(which), -1, units).mean(axis=1)
        return jnp.take_along_axis(means, which[:, None], axis=-1).sum()

    @jax.jit
    def climb(variables: Any, waves: jax.Array, shifts: jax.Array) -> jax.Array:
        def step(waves: jax.Array, shift: jax.Array) -> tuple[jax.Array, None]:
            slope = jax.grad(total)(waves, variables, shift)
            size = jnp.sqrt(jnp.mean(slope**2, axis=(1, 2, 3, 4), keepdims=True))
            # The same way at each step, however steep; nowhere where a channel does not answer at all.
            return waves + rate * slope / jnp.where(size > 0, size, 1), None

        return draw(jax.lax.scan(step, waves, shifts)[0])

    begin, moves = jax.random.split(jax.random.key(seed))
    # The same beginning for all: what differs in the end differs because of the channels. It must be lively enough to
    # excite a channel a little, or a rectifier lets no gradient through.
    waves = 0.1 * jax.random.normal(begin, (1, *frequencies.shape, colours, 2)).repeat(len(which), axis=0)
    shifts = jax.random.randint(moves, (steps, 2), -reach, reach + 1)
    return np.asarray(climb(dict(variables), waves, shifts))
