"""MobileNetV2: Sandler, Howard, Zhu, Zhmoginov and Chen 2018, arXiv:1801.04381."""

import flax.linen as nn
import jax

from convjax.layers import ActivationName, ClassifierHead, ConvNormAct
from convjax.models.base import BlockModel
from convjax.models.inverted_residual import InvertedResidual, round_channels

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""The paper's table 2: expansion, channels, blocks, and stride of the first block."""


class MobileNetV2(BlockModel):
    """A 3x3 convolution, seven stages of inverted residuals with linear bottlenecks, and a 1x1 convolution."""

    activation: ActivationName = "relu6"
    """Nonlinearity."""
    width_factor: float = 1.0
    """What channels are multiplied by, and rounded to multiples of 8; the last 1280 never shrink."""
    drop_path: float = 0.0
    """Probability of dropping the last block's branch; it grows linearly from 0 at the first block."""
    dropout: float = 0.2
    """Share of features dropped before the classifier."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train)
        x = ConvNormAct(layers, round_channels(32 * self.width_factor), 3, 2, name="stem")(images)
        total = sum(blocks for _, _, blocks, _ in STAGES)
        done = 0
        for stage, (expansion, channels, blocks, first_stride) in enumerate(STAGES, start=1):
            for i in range(1, blocks + 1):
                block = self.recomputed(InvertedResidual)(
                    layers,
                    features=round_channels(channels * self.width_factor),
                    expanded=x.shape[-1] * expansion,
                    kernel_size=3,
                    stride=first_stride if i == 1 else 1,
                    drop_path=self.drop_path * done / (total - 1),
                    train=train,
                    name=f"stage{stage}_block{i}",
                )
                x = block(x)
                done += 1
        x = ConvNormAct(layers, round_channels(1280 * max(self.width_factor, 1.0)), 1, name="last")(x)
        return ClassifierHead(self.num_classes, train, self.dropout, name="head")(x)
