"""ConvNeXt: Liu, Mao, Wu, Feichtenhofer, Darrell and Xie 2022, "A ConvNet for the 2020s", arXiv:2201.03545."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ActivationName, ClassifierHead, DropPath, Layers
from convjax.models.base import BlockModel
from convjax.norms import NormName

truncated_normal = nn.initializers.truncated_normal(0.02)
"""The paper's initialisation (table 5), with biases of zero."""


class LayerScale(nn.Module):
    """Multiplies each channel by a learned number that starts at `start` (Touvron et al. 2021, arXiv:2103.17239)."""

    start: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.constant(self.start), (x.shape[-1],), jnp.float32)
        return x * scale.astype(x.dtype)


class Block(nn.Module):
    """A 7x7 depthwise convolution, a norm, and two 1x1 convolutions, four times wider between them (figure 4).

    `[N, H, W, C]` to the same.
    """

    layers: Layers
    layer_scale: float
    drop_path: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        y = self.layers.conv(channels, 7, groups=channels, use_bias=True, name="depthwise")(x)
        y = self.layers.norm(name="norm")(y)
        y = self.layers.conv(4 * channels, 1, use_bias=True, name="expand")(y)
        y = self.layers.activation(y)
        y = self.layers.conv(channels, 1, use_bias=True, name="project")(y)
        if self.layer_scale > 0:
            y = LayerScale(self.layer_scale, name="layer_scale")(y)
        return x + DropPath(self.drop_path, self.train, name="drop_path")(y)


class ConvNeXt(BlockModel):
    """A ResNet-50 remade step by step after vision transformers: four stages, with a norm before each halving."""

    norm: NormName = "layer"
    """Normalisation: one a block, one before each halving, one after the stem, one before the classifier."""
    activation: ActivationName = "gelu"
    """Nonlinearity, one a block."""
    stage_sizes: tuple[int, ...] = (3, 3, 9, 3)
    """Blocks of each stage."""
    width: int = 96
    """Channels of the first stage; each later stage doubles them."""
    patch: int = 4
    """Side in pixels of the squares that the first convolution makes one pixel of."""
    layer_scale: float = 1e-6
    """What the learned scale of each branch starts at; 0 leaves it out."""
    drop_path: float = 0.1
    """Probability of dropping the last block's branch; it grows linearly from 0 at the first block."""
    dropout: float = 0.0
    """Share of features dropped before the classifier."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train, kernel_init=truncated_normal)
        patches = layers.conv(self.width, self.patch, stride=self.patch, padding="VALID", use_bias=True, name="stem")
        x = layers.norm(name="stem_norm")(patches(images))
        block, total = self.recomputed(Block), sum(self.stage_sizes)
        done = 0
        for stage, size in enumerate(self.stage_sizes, start=1):
            if stage > 1:
                x = layers.norm(name=f"stage{stage}_norm")(x)
                features = self.width * 2 ** (stage - 1)
                x = layers.conv(features, 2, stride=2, padding="VALID", use_bias=True, name=f"stage{stage}_halve")(x)
            for i in range(1, size + 1):
                rate = self.drop_path * done / max(total - 1, 1)
                x = block(layers, self.layer_scale, rate, train, name=f"stage{stage}_block{i}")(x)
                done += 1
        # Pooling first, so that the norm sees one pixel an image; the head's own mean then changes nothing.
        x = ops.global_avg_pool(x.astype(jnp.float32))[:, None, None, :]
        return ClassifierHead(self.num_classes, train, self.dropout, name="head")(layers.norm(name="norm")(x))
