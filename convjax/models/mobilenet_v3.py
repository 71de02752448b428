"""MobileNetV3: Howard et al. 2019, "Searching for MobileNetV3", arXiv:1905.02244."""

from dataclasses import replace
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ACTIVATIONS, ActivationName, ConvNormAct, SqueezeExcite, hard_sigmoid
from convjax.models.base import BlockModel
from convjax.models.inverted_residual import InvertedResidual, round_channels

_LARGE = (
    (3, 16, 16, False, "early", 1),
    (3, 64, 24, False, "early", 2),
    (3, 72, 24, False, "early", 1),
    (5, 72, 40, True, "early", 2),
    (5, 120, 40, True, "early", 1),
    (5, 120, 40, True, "early", 1),
    (3, 240, 80, False, "late", 2),
    (3, 200, 80, False, "late", 1),
    (3, 184, 80, False, "late", 1),
    (3, 184, 80, False, "late", 1),
    (3, 480, 112, True, "late", 1),
    (3, 672, 112, True, "late", 1),
    (5, 672, 160, True, "late", 2),
    (5, 960, 160, True, "late", 1),
    (5, 960, 160, True, "late", 1),
)
"""The paper's table 1: kernel, expanded channels, channels, squeeze-and-excitation, which activation, stride."""
_SMALL = (
    (3, 16, 16, True, "early", 2),
    (3, 72, 24, False, "early", 2),
    (3, 88, 24, False, "early", 1),
    (5, 96, 40, True, "late", 2),
    (5, 240, 40, True, "late", 1),
    (5, 240, 40, True, "late", 1),
    (5, 120, 48, True, "late", 1),
    (5, 144, 48, True, "late", 1),
    (5, 288, 96, True, "late", 2),
    (5, 576, 96, True, "late", 1),
    (5, 576, 96, True, "late", 1),
)
"""Table 2."""


class MobileNetV3(BlockModel):
    """Inverted residuals found by search, some with squeeze-and-excitation; the head is cheap.

    The last 1x1 convolution comes after the pooling, where it costs next to nothing (section 5.1).
    """

    activation: ActivationName = "hard_swish"
    """Nonlinearity of the stem, the later blocks and the head."""
    early_activation: ActivationName = "relu"
    """Nonlinearity of the earlier blocks, where there are many pixels, and inside squeeze-and-excitation."""
    size: Literal["large", "small"] = "large"
    """Which of the paper's two networks."""
    width_factor: float = 1.0
    """What channels are multiplied by, and rounded to multiples of 8."""
    batch_epsilon: float = 1e-3
    """What a batch norm adds to the variance."""
    batch_decay: float = 0.99
    """What a batch norm's running statistics are multiplied by at each step."""
    dropout: float = 0.2
    """Share of features dropped before the classifier."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        late = self.layers(train=train, batch_epsilon=self.batch_epsilon, batch_decay=self.batch_decay)
        early = replace(late, activation=ACTIVATIONS[self.early_activation])
        x = ConvNormAct(late, round_channels(16 * self.width_factor), 3, 2, name="stem")(images)
        blocks = _LARGE if self.size == "large" else _SMALL
        for i, (kernel, expanded, features, squeezed, activation, stride) in enumerate(blocks, start=1):
            inner = round_channels(expanded * self.width_factor)
            squeeze = partial(SqueezeExcite, early, hidden=round_channels(inner // 4), gate=hard_sigmoid)
            block = self.recomputed(InvertedResidual)(
                early if activation == "early" else late,
                features=round_channels(features * self.width_factor),
                expanded=inner,
                kernel_size=kernel,
                stride=stride,
                squeeze=squeeze if squeezed else None,
                train=train,
                name=f"block{i}",
            )
            x = block(x)
        x = ConvNormAct(late, 6 * x.shape[-1], 1, name="last")(x)
        x = ops.global_avg_pool(x.astype(jnp.float32))
        units = round_channels((1280 if self.size == "large" else 1024) * self.width_factor)
        x = late.activation(nn.Dense(units, dtype=jnp.dtype(self.dtype), name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train, name="dropout")(x)
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))
