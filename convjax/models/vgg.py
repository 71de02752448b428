"""Very deep networks of 3x3 convolutions: Simonyan and Zisserman 2014, arXiv:1409.1556."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.models.base import Model
from convjax.norms import NormName


class VGG(Model):
    """Five stages of 3x3 convolutions, each with a 2x2 max-pooling at its end, and three linear layers.

    The paper's configurations A, B, D and E are VGG-11, 13, 16 and 19. Images of other sizes than 224 are
    brought to the first linear layer's `pool_size` by adaptive pooling, as torchvision does.
    """

    norm: NormName = "none"
    """Normalisation after each convolution."""
    stage_sizes: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions of each stage."""
    width: int = 64
    """Channels of the first stage; each later one doubles them, up to eight times as many."""
    hidden: tuple[int, ...] = (4096, 4096)
    """Units of the linear layers before the last."""
    pool_size: int = 7
    """Side in pixels of what the first linear layer sees."""
    dropout: float = 0.5
    """Share of the linear layers' units dropped in training."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train)
        x = images
        for stage, size in enumerate(self.stage_sizes, start=1):
            features = self.width * min(2 ** (stage - 1), 8)
            for i in range(1, size + 1):
                # Before a norm torchvision keeps the bias too, which the norm takes away; published counts have it.
                x = layers.conv(features, 3, use_bias=self.norm != "none", name=f"stage{stage}_conv{i}")(x)
                x = layers.activation(layers.norm(name=f"stage{stage}_norm{i}")(x))
            x = ops.max_pool(x, 2)
        x = ops.adaptive_avg_pool(x, self.pool_size)
        x = x.reshape(x.shape[0], -1)
        for i, units in enumerate(self.hidden, start=1):
            x = layers.activation(nn.Dense(units, dtype=jnp.dtype(self.dtype), name=f"dense{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"dropout{i}")(x)
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))
