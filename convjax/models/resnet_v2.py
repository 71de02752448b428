"""Pre-activation residual networks: He, Zhang, Ren and Sun 2016, "Identity mappings in deep residual networks",
arXiv:1603.05027; wider: Zagoruyko and Komodakis 2016, "Wide residual networks", arXiv:1605.07146.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ClassifierHead, DropPath, Layers
from convjax.models.base import BlockModel
from convjax.models.resnet import check_image_size

Shortcut = Literal["A", "B"]


class PreActBlock(nn.Module):
    """Norm and activation before each convolution, and a shortcut around all (the paper's figure 4e).

    Basic: two 3x3 convolutions. Bottleneck: 1x1, 3x3 with the stride, and 1x1 to four times the features.
    `[N, H, W, C]` to `[N, ceil(H / stride), ceil(W / stride), features]`, or four times the features.

    Attributes:
        layers: convolution, norm and activation.
        features: channels of the 3x3 convolutions.
        stride: pixels between windows of the first 3x3 convolution.
        bottleneck: which of the two.
        shortcut: where shapes differ: A subsamples and pads with zeros, B is a 1x1 convolution.
        first: whether the shortcut starts after the first activation whatever the shapes are (the paper's
            appendix has it so in a network's first block).
        dropout: share dropped before the last 3x3 convolution (Wide ResNet's section 2.4).
        drop_path: probability of dropping the branch.
        train: whether anything is dropped.
    """

    layers: Layers
    features: int
    stride: int
    bottleneck: bool
    shortcut: Shortcut
    first: bool
    dropout: float
    drop_path: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        features = self.features * 4 if self.bottleneck else self.features
        y = layers.activation(layers.norm(name="norm1")(x))
        differs = self.stride > 1 or x.shape[-1] != features
        if self.first or differs:
            x = y
        if differs and self.shortcut == "B":
            x = layers.conv(features, 1, stride=self.stride, name="shortcut")(x)
        elif differs:
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))

        def then(i: int, channels: int, kernel: int, stride: int, y: jax.Array) -> jax.Array:
            y = layers.activation(layers.norm(name=f"norm{i}")(y))
            if kernel == 3:
                y = nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(y)
            return layers.conv(channels, kernel, stride=stride, name=f"conv{i}")(y)

        if self.bottleneck:
            y = layers.conv(self.features, 1, name="conv1")(y)
            y = then(2, self.features, 3, self.stride, y)
            y = then(3, features, 1, 1, y)
        else:
            y = layers.conv(features, 3, stride=self.stride, name="conv1")(y)
            y = then(2, features, 3, 1, y)
        return x + DropPath(self.drop_path, self.train, name="drop_path")(y)


class ResNetV2(BlockModel):
    """Stages of pre-activation blocks, with a norm and an activation at their end.

    On CIFAR: three stages after a 3x3 convolution. On ImageNet: four, after a 7x7 convolution without norm
    and a max-pooling.
    """

    stage_sizes: tuple[int, ...] = (3, 3, 3)
    """Blocks of each stage."""
    block: Literal["basic", "bottleneck"] = "basic"
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1."""
    width: int = 16
    """Channels of the first stage (inside of its bottlenecks); each later stage doubles them."""
    stem_features: int = 16
    """Channels of the first convolution."""
    stem: Literal["imagenet", "cifar"] = "cifar"
    """How images enter: for about 224 pixels, or for about 32."""
    shortcut: Shortcut = "A"
    """Where shapes differ: A pads with zeros, B projects."""
    drop_path: float = 0.0
    """Probability of dropping the last block's branch; it grows linearly from 0 at the first block."""
    block_dropout: float = 0.0
    """Share of activations dropped inside of each branch."""
    dropout: float = 0.0
    """Share of features dropped before the classifier."""
    allow_small_images: bool = False
    """Whether the ImageNet stem accepts images below 64 pixels."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train)
        if self.stem == "imagenet":
            check_image_size(images, self.allow_small_images)
            x = layers.conv(self.stem_features, 7, stride=2, name="stem")(images)
            x = ops.max_pool(x, 3, stride=2, padding=1)
        else:
            x = layers.conv(self.stem_features, 3, name="stem")(images)
        total = sum(self.stage_sizes)
        done = 0
        for stage, size in enumerate(self.stage_sizes, start=1):
            for i in range(1, size + 1):
                block: Callable[[jax.Array], jax.Array] = self.recomputed(PreActBlock)(
                    layers,
                    features=self.width * 2 ** (stage - 1),
                    stride=2 if stage > 1 and i == 1 else 1,
                    bottleneck=self.block == "bottleneck",
                    shortcut=self.shortcut,
                    first=done == 0,
                    dropout=self.block_dropout,
                    drop_path=self.drop_path * done / max(total - 1, 1),
                    train=train,
                    name=f"stage{stage}_block{i}",
                )
                x = block(x)
                done += 1
        x = layers.activation(layers.norm(name="norm")(x))
        return ClassifierHead(self.num_classes, train, self.dropout, name="head")(x)
