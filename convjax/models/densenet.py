"""Densely connected networks: Huang, Liu, van der Maaten and Weinberger 2016, arXiv:1608.06993."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ClassifierHead, Layers
from convjax.models.base import BlockModel
from convjax.models.resnet import imagenet_stem

he_normal_in = nn.initializers.he_normal()
"""Normal, variance 2 / fan-in: the paper's section 4.2 by way of arXiv:1502.01852, equation 10."""


class DenseLayer(nn.Module):
    """Norm, activation, 1x1 convolution, norm, activation, 3x3 convolution; the result joins the input's channels.

    `[N, H, W, C]` to `[N, H, W, C + growth]`. Without the bottleneck the 1x1 convolution is left out.
    """

    layers: Layers
    growth: int
    bottleneck: bool
    dropout: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        y = layers.activation(layers.norm(name="norm1")(x))
        if self.bottleneck:
            y = layers.conv(4 * self.growth, 1, name="conv1")(y)
            y = layers.activation(layers.norm(name="norm2")(y))
        y = layers.conv(self.growth, 3, name="conv2")(y)
        y = nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(y)
        return jnp.concatenate([x.astype(y.dtype), y], axis=-1)


class Transition(nn.Module):
    """Norm, activation, 1x1 convolution to `features` channels, 2x2 average pooling."""

    layers: Layers
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layers.activation(self.layers.norm(name="norm")(x))
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
        for i, size in enumerate(self.block_sizes, start=1):
            for j in range(1, size + 1):
                x = layer(layers, self.growth, self.bottleneck, self.dropout, train, name=f"block{i}_layer{j}")(x)
            if i < len(self.block_sizes):
                x = Transition(layers, int(x.shape[-1] * self.compression), name=f"transition{i}")(x)
        x = layers.activation(layers.norm(name="norm")(x))
        return ClassifierHead(self.num_classes, train, name="head")(x)
