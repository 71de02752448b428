"""What the first layer looks for: its filters as images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from numpy.typing import NDArray

from convjax.errors import UsageError
from convjax.inspect import summary


class Filters(NamedTuple):
    """Attributes:
    part: the layer that they belong to, as its path in the parameter tree.
    values: float32 `[filters, height, width, channels]`; channels are the image's.
    """

    part: str
    values: NDArray[np.float32]


def first_layer(model: nn.Module, variables: Mapping[str, Any], image: tuple[int, int, int]) -> Filters:
    """Returns the filters of the first layer that sees the image itself.

    Of a dense layer on the flattened image each filter is as large as the image.

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        image: (height, width, channels).

    Raises:
        UsageError: no layer has a kernel that fits the image.
    """
    height, width, channels = image
    for layer in summary.layers(model, image):
        held: Any = variables.get("params", {})
        for name in filter(None, layer.path.split("/")):
            held = held.get(name, {})
        if not isinstance(held, Mapping) or (kernel := held.get("kernel")) is None:
            continue
        values = np.asarray(kernel, np.float32)
        if values.ndim == 4 and values.shape[2] == channels:
            return Filters(layer.path, values.transpose(3, 0, 1, 2))
        if values.ndim == 2 and values.shape[0] == height * width * channels:
            return Filters(layer.path, values.T.reshape(-1, height, width, channels))
    raise UsageError("no layer of the network has a kernel on the image itself: it has no first filters to show")
