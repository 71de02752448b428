"""The plain ConvNet of textbooks: stages of convolutions with a smaller image after each but the last."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ClassifierHead
from convjax.models.base import Model


class ConvNet(Model):
    """Convolution, norm, activation, again and again: what an ablation changes one field of.

    Between two stages the image becomes half as large on each side, in the way that `pool` says. All convolutions
    keep the size otherwise. A `strided` network has the convolutions of the others: the one after each pooling takes
    its stride.
    """

    stage_widths: tuple[int, ...] = (16, 32, 64)
    """Channels of each stage."""
    depth: int = 1
    """Convolutions of each stage."""
    kernel_size: int = 3
    """Side of each kernel, odd."""
    dilation: int = 1
    """Pixels between neighbouring taps of each kernel."""
    stem_stride: int = 1
    """Stride of the first convolution."""
    pool: Literal["max", "average", "strided", "none"] = "max"
    """Between stages: 2x2 max- or average-pooling, a convolution of stride 2, or nothing at all."""
    head: Literal["mean", "flat"] = "mean"
    """What the linear classifier sees: the mean over all pixels of each channel, or each pixel."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        if self.kernel_size < 1 or self.kernel_size % 2 == 0 or self.dilation < 1:
            raise ValueError(
                f"model.kernel_size is {self.kernel_size} and model.dilation {self.dilation}: "
                "they must be odd, and at least 1"
            )
        layers = self.layers(train=train)
        x = images
        for stage, features in enumerate(self.stage_widths, start=1):
            stride = self.stem_stride
            if stage > 1:
                stride = 2 if self.pool == "strided" else 1
                x = _pooled(x, self.pool)
            for i in range(1, self.depth + 1):
                conv = layers.conv(
                    features,
                    self.kernel_size,
                    stride=stride if i == 1 else 1,
                    dilation=self.dilation,
                    name=f"stage{stage}_conv{i}",
                )
                x = layers.activation(layers.norm(name=f"stage{stage}_norm{i}")(conv(x)))
        if self.head == "flat":
            flat = x.reshape(x.shape[0], -1).astype(jnp.float32)
            return nn.Dense(self.num_classes, name="head")(flat)
        return ClassifierHead(self.num_classes, train, name="head")(x)


def _pooled(x: jax.Array, pool: str) -> jax.Array:
    if pool == "max":
        return ops.max_pool(x, 2)
    return ops.avg_pool(x, 2) if pool == "average" else x
