"""LeNet-5: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition"."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ActivationName
from convjax.models.base import Model
from convjax.norms import NormName


class LeNet5(Model):
    """Two convolutions, each with a pooling, and three linear layers; 61,706 parameters on grey images.

    As it is built today: pooling has no weights, C3 sees all maps of S2, and the output is linear. Smaller
    images are padded with zeros to the paper's 32 x 32; larger ones make the first linear layer larger.
    """

    norm: NormName = "none"
    """Normalisation after each convolution."""
    activation: ActivationName = "tanh"
    """Nonlinearity."""
    pool: Literal["average", "max"] = "average"
    """How S2 and S4 summarise their 2 x 2 windows."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train)
        pool = ops.avg_pool if self.pool == "average" else ops.max_pool
        dtype = jnp.dtype(self.dtype)

        missing = [max(32 - size, 0) for size in images.shape[1:3]]
        x = jnp.pad(images, ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
        for i, features in enumerate((6, 16)):
            x = layers.conv(features, 5, padding="VALID", name=f"c{2 * i + 1}")(x)
            x = pool(layers.activation(layers.norm(name=f"norm{2 * i + 1}")(x)), 2)
        x = x.reshape(x.shape[0], -1)
        for name, units in (("c5", 120), ("f6", 84)):
            x = layers.activation(nn.Dense(units, dtype=dtype, name=name)(x))
        return nn.Dense(self.num_classes, name="output")(x.astype(jnp.float32))
