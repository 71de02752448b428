"""AlexNet: Krizhevsky, Sutskever and Hinton 2012; with the widths of Krizhevsky 2014, arXiv:1404.5997, section 5."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.models.base import Model
from convjax.norms import NormName

_CONVOLUTIONS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
"""Channels, kernel, stride and padding of each."""
_POOLED = (1, 2, 5)
"""Convolutions that a 3x3 max-pooling with stride 2 follows."""


class AlexNet(Model):
    """Five convolutions and three linear layers, on one device: no groups, no response normalisation."""

    norm: NormName = "none"
    """Normalisation after each convolution."""
    hidden: tuple[int, ...] = (4096, 4096)
    """Units of the linear layers before the last."""
    pool_size: int = 6
    """Side in pixels of what the first linear layer sees; 224 pixels give it, others are pooled to it."""
    dropout: float = 0.5
    """Share of the inputs of each linear layer but the last dropped in training."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train)
        x = images
        for i, (features, kernel, stride, padding) in enumerate(_CONVOLUTIONS, start=1):
            x = layers.conv(features, kernel, stride=stride, padding=padding, name=f"conv{i}")(x)
            x = layers.activation(layers.norm(name=f"norm{i}")(x))
            if i in _POOLED:
                x = ops.max_pool(x, 3, stride=2)
        x = ops.adaptive_avg_pool(x, self.pool_size)
        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate(self.hidden, start=1):
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{i}")(x)
            x = layers.activation(nn.Dense(units, dtype=jnp.dtype(self.dtype), name=f"dense{i}")(x))
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))
