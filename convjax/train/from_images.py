"""Variables that a model computes from training images before the first step, rather than drawing them."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from convjax.data import order
from convjax.data.sources import Split
from convjax.data.splits import Normalise
from convjax.train.config import Config


@runtime_checkable
class ComputesVariables(Protocol):
    """A model that starts from something that it computes from images."""

    def variables_from(self, images: Callable[[int], jax.Array]) -> dict[str, jax.Array]:
        """Returns variables by path, as `params/whiten/kernel`.

        Args:
            images: returns so many normalised training images `[N, H, W, C]`, or all where there are fewer.
        """
        ...


def computed(config: Config, train: Split, normalise: Normalise) -> dict[str, Any]:
    """Returns what the configuration's model computes, by path: a function of the seed and the train split.

    The images are the first of the run's first epoch.
    """
    if not isinstance(config.model, ComputesVariables):
        return {}

    def images(count: int) -> jax.Array:
        chosen = order.epoch_order(config.seed, 0, len(train))[:count]
        return normalise(jnp.asarray(train.images[chosen]))

    return jax.device_get(config.model.variables_from(images))
