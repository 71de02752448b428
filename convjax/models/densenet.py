"""Densely connected networks: Huang, Liu, van der Maaten and Weinberger 2016, arXiv:1608.06993."""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ClassifierHead, Layers
from convjax.models.base import BlockModel
from convjax.models.resnet import imagenet_stem
from convjax.norms import Moments

he_normal_in = nn.initializers.he_normal()
"""Normal, variance 2 / fan-in: the paper's section 4.2 by way of arXiv:1502.01852, equation 10."""


class DenseLayer(nn.Module):
    """Norm, activation, 1x1 convolution, norm, activation, 3x3 convolution: the channels that a layer adds.

    `[N, H, W, C]` to `[N, H, W, growth]`. Without the bottleneck the 1x1 convolution is left out. `moments` are those
    of the input, where they are known.
    """

    layers: Layers
    growth: int
    bottleneck: bool
    dropout: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array, moments: Moments | None = None) -> jax.Array:
        layers = self.layers
        y = layers.activation(_normalised(layers.norm(name="norm1"), x, moments))
        if self.bottleneck:
            y = layers.conv(4 * self.growth, 1, name="conv1")(y)
            y = layers.activation(layers.norm(name="norm2")(y))
        y = layers.conv(self.growth, 3, name="conv2")(y)
        return nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(y)


class Joined(nn.Module):
    """Hands on a block's channels, those that entered it and all that its layers added: what its name stands for."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x


class Transition(nn.Module):
    """Norm, activation, 1x1 convolution to `features` channels, 2x2 average pooling."""

    layers: Layers
    features: int

    @nn.compact
    def __call__(self, x: jax.Array, moments: Moments | None = None) -> jax.Array:
        x = self.layers.activation(_normalised(self.layers.norm(name="norm"), x, moments))
        return ops.avg_pool(self.layers.conv(self.features, 1, name="conv")(x), 2)


class DenseNet(BlockModel):
    """Blocks in which each layer sees the outputs of all layers before it, with transitions between them."""

    block_sizes: tuple[int, ...] = (6, 12, 24, 16)
    """Layers of each block."""
    growth: int = 32
    """Channels that each layer adds (the paper's k)."""
    stem_features: int = 64
    """Channels of the first convolution."""
    stem: Literal["imagenet", "cifar"] = "imagenet"
    """How images enter: for about 224 pixels, or for about 32."""
    bottleneck: bool = True
    """Whether a 1x1 convolution to 4k channels precedes each 3x3 (the B of DenseNet-BC)."""
    compression: float = 0.5
    """Share of the channels that a transition keeps (the C of DenseNet-BC)."""
    dropout: float = 0.0
    """Share of activations dropped after each 3x3 convolution."""
    allow_small_images: bool = False
    """Whether the ImageNet stem accepts images below 64 pixels."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train, kernel_init=he_normal_in)
        if self.stem == "imagenet":
            x = imagenet_stem(layers, self.stem_features, images, self.allow_small_images)
        else:
            x = layers.conv(self.stem_features, 3, name="stem")(images)
        layer = self.recomputed(DenseLayer)
        moments: Moments | None = None
        for i, size in enumerate(self.block_sizes, start=1):
            # Each layer of the block sees all channels of the one before: their statistics are taken once.
            moments = layers.moments(x)
            for j in range(1, size + 1):
                name = f"block{i}_layer{j}"
                new = layer(layers, self.growth, self.bottleneck, self.dropout, train, name=name)(x, moments)
                moments = _joined(moments, layers.moments(new))
                x = jnp.concatenate([x.astype(new.dtype), new], axis=-1)
            x = Joined(name=f"block{i}")(x)
            if i < len(self.block_sizes):
                x = Transition(layers, int(x.shape[-1] * self.compression), name=f"transition{i}")(x, moments)
        x = layers.activation(_normalised(layers.norm(name="norm"), x, moments))
        return ClassifierHead(self.num_classes, train, name="head")(x)


def _joined(first: Moments | None, second: Moments | None) -> Moments | None:
    """Returns the moments of channels side by side."""
    if first is None or second is None:
        return None
    return jnp.concatenate([first[0], second[0]]), jnp.concatenate([first[1], second[1]])


def _normalised(norm: Callable[..., jax.Array], x: jax.Array, moments: Moments | None) -> jax.Array:
    return norm(x) if moments is None else norm(x, moments=moments)
