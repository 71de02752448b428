"""A network as the page shows it: what each part makes of an image, and where in the image a unit looks."""

import dataclasses
import functools
import threading
from collections import OrderedDict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from convjax.data import images
from convjax.errors import UsageError
from convjax.inspect import receptive_field
from convjax.inspect.features import features
from convjax.train.weights import Weights

MAX_DEPTH = 3


@dataclasses.dataclass(frozen=True)
class Patch:
    """Where a unit looks.

    Attributes:
        unit: (row, column) in its feature map.
        value: its activation.
        box: (top, left, height, width) of its receptive field, in pixels of the network's input.
        gradient: largest absolute gradient over the channels of each input pixel, `[H, W]`: which of these pixels
            matter to it here.
    """

    unit: tuple[int, int]
    value: float
    box: tuple[int, int, int, int]
    gradient: NDArray[np.float32]


class Network:
    """A network with its weights, ready to be asked about images."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._classifier = weights.classifier()
        self._lock = threading.Lock()
        self._last: tuple[Any, OrderedDict[str, NDArray[np.float32]]] | None = None
        # One compiled function a depth, and one a part that was asked for.
        self._features = functools.cache(self._compile_features)
        self._gradient = functools.cache(self._compile_gradient)
        self._fields = functools.cache(lambda part: receptive_field.fields(weights.model, weights.image, part))

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Returns an image as the network takes it, just as `convjax predict` prepares it."""
        return images.pixels(image, *self.weights.image, self.weights.crop)

    def probabilities(self, image: Image.Image) -> NDArray[np.float32]:
        """Returns the probability of each class."""
        return self._classifier(self.pixels(image)[None])[0]

    def parts(self, image: Image.Image, depth: int) -> OrderedDict[str, NDArray[np.float32]]:
        """Returns the outputs of the network's parts by name, `[h, w, C]` or `[C]`; see `convjax.features`.

        Raises:
            UsageError: `depth` is not from 1 to 3.
        """
        if type(depth) is not int or not 1 <= depth <= MAX_DEPTH:
            raise UsageError(f"depth is {depth!r}: it must be from 1 to {MAX_DEPTH}")
        pixels = self.pixels(image)
        key = (pixels.tobytes(), depth)
        with self._lock:
            if self._last is None or self._last[0] != key:
                found = self._features(depth)(self.weights.variables, self._normalised(pixels))
                self._last = key, _shown(found)
            return self._last[1]

    def patch(
        self, image: Image.Image, depth: int, part: str, channel: int, unit: tuple[int, int] | None = None
    ) -> Patch:
        """Returns where a unit of a part's channel looks: the given one, or the channel's most active one.

        Raises:
            UsageError: there is no such part, channel or unit.
        """
        outputs = self.parts(image, depth)
        if part not in outputs or outputs[part].ndim != 3:
            raise UsageError(f"the network has no feature maps {part!r} at depth {depth}")
        maps = outputs[part]
        if type(channel) is not int or not 0 <= channel < maps.shape[-1]:
            raise UsageError(f"channel is {channel!r}: {part} has {maps.shape[-1]}")
        if unit is None:
            row, column = divmod(int(np.argmax(maps[..., channel])), maps.shape[1])
        elif all(type(i) is int and 0 <= i < n for i, n in zip(unit, maps.shape[:2], strict=True)):
            row, column = unit
        else:
            raise UsageError(f"the unit is {unit}: {part} has {maps.shape[0]} x {maps.shape[1]}")
        with self._lock:
            rows, columns = self._fields(part).box(row, column)
            slope = self._gradient(depth, part)(
                self.weights.variables, self._normalised(self.pixels(image)), row, column, channel
            )
        return Patch(
            unit=(row, column),
            value=float(maps[row, column, channel]),
            box=(rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start),
            gradient=np.abs(np.asarray(slope[0])).max(-1),
        )

    def _compile_features(self, depth: int) -> Any:
        return jax.jit(lambda variables, x: features(self.weights.model, variables, x, depth=depth))

    def _compile_gradient(self, depth: int, part: str) -> Any:
        """Returns the function that takes the gradient of one unit of a part with regard to the image."""

        def activation(x: jax.Array, variables: Any, row: int, column: int, channel: int) -> jax.Array:
            output = features(self.weights.model, variables, x, depth=depth)[part]
            return output[0, row, column, channel].astype(jnp.float32)

        return jax.jit(lambda variables, x, *unit: jax.grad(activation)(x, variables, *unit))

    def _normalised(self, pixels: NDArray[np.uint8]) -> jax.Array:
        return self.weights.normalise(jnp.asarray(pixels)[None])


def _shown(found: "OrderedDict[str, Any]") -> "OrderedDict[str, NDArray[np.float32]]":
    """Returns the maps and vectors among a network's outputs; stages, which repeat their last block, are left out."""
    shown: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
    for name, output in found.items():
        if not isinstance(output, jax.Array) or output.ndim not in (2, 4):
            continue
        values = np.asarray(output[0], np.float32)
        before = next(reversed(shown), "")
        if not (before.startswith(f"{name}_") and np.array_equal(shown[before], values)):
            shown[name] = values
    return shown
