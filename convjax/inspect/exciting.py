"""What excites a channel most: patches of real images, cut out along the receptive field."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.inspect import receptive_field
from convjax.inspect.features import output_of


@dataclasses.dataclass(frozen=True)
class Exciting:
    """The images that excite each channel of a layer most, one place an image, the most exciting first.

    Attributes:
        part: the layer.
        values: float32 `[channels, k]`, the channel's largest value in each of these images.
        ids: int64 `[channels, k]`, which image it is.
        places: int64 `[channels, k, 2]`, row and column of that value in the layer's output.
        fields: the receptive fields of the layer's units.
    """

    part: str
    values: NDArray[np.float32]
    ids: NDArray[np.int64]
    places: NDArray[np.int64]
    fields: receptive_field.Fields

    def patch(self, images: NDArray[np.uint8], channel: int, rank: int) -> NDArray[np.uint8]:
        """Returns the part `[h, w, C]` of an image that its unit depends on; `images` are those that were searched."""
        rows, columns = self.fields.box(*self.places[channel, rank])
        patch: NDArray[np.uint8] = images[self.ids[channel, rank], rows, columns]
        return patch


def most_exciting(
    model: nn.Module,
    variables: Mapping[str, Any],
    normalise: Callable[[jax.Array], jax.Array],
    images: NDArray[np.uint8],
    part: str,
    *,
    count: int = 9,
    batch_size: int = 256,
    advanced: Callable[[int], None] = lambda done: None,
) -> Exciting:
    """Searches images for what excites each channel of a layer most.

    Source: Zeiler and Fergus 2013, arXiv:1311.2901, section 4 and figure 2.

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        normalise: turns uint8 images into what the network takes.
        images: uint8 `[N, H, W, C]`.
        part: the layer's name in `convjax.features`; its output must be `[N, h, w, c]`.
        count: images to find for each channel; N if that is less.
        batch_size: images at a time.
        advanced: called with the number of images searched so far.

    Raises:
        UsageError: there is no such layer, or its output is no `[N, h, w, c]`.
    """
    fields = receptive_field.fields(model, images.shape[1:], part)
    size = fields.rows.shape[:2]

    @jax.jit
    def peaks(variables: Any, batch: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = output_of(model, variables, normalise(batch), part)
        flat = outputs.reshape(len(batch), -1, outputs.shape[-1]).astype(jnp.float32)
        return flat.max(axis=1).T, flat.argmax(axis=1).T

    best: list[NDArray[Any]] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        # The last one is filled up, so that nothing is compiled twice.
        filled = np.concatenate([batch, np.repeat(batch[:1], batch_size - len(batch), axis=0)])
        values, places = (np.asarray(x)[:, : len(batch)] for x in peaks(variables, filled))
        ids = np.broadcast_to(np.arange(start, start + len(batch)), values.shape)
        found = [values, ids, places]
        joined = [np.concatenate(pair, axis=1) for pair in zip(best, found, strict=True)] if best else found
        order = np.argsort(-joined[0], axis=1, kind="stable")[:, :count]
        best = [np.take_along_axis(x, order, axis=1) for x in joined]
        advanced(start + len(batch))
    values, ids, places = best
    where = np.stack(np.unravel_index(places, size), axis=-1).astype(np.int64)
    return Exciting(part, values, ids.astype(np.int64), where, fields)
