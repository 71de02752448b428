"""The plain network on pixels: what a ConvNet is compared with."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax.models.base import Model


class MLP(Model):
    """A multilayer perceptron on the flattened image.

    The first layer alone has H * W * C * hidden[0] weights: a thousand units on an image of 1000 x 1000 x 3
    need three thousand million.
    """

    hidden: tuple[int, ...] = (512, 512)
    """Units of each hidden layer."""
    dropout: float = 0.0
    """Share of the hidden units dropped in training."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train)
        x = images.reshape(images.shape[0], -1)
        for i, units in enumerate(self.hidden, start=1):
            x = nn.Dense(units, use_bias=False, dtype=jnp.dtype(self.dtype), name=f"dense{i}")(x)
            x = layers.activation(layers.norm(name=f"norm{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{i}")(x)
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))
