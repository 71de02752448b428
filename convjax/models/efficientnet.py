"""EfficientNet: Tan and Le 2019, arXiv:1905.11946; EfficientNet-Lite: Google 2020, for integer arithmetic."""

import math
from functools import partial
from typing import Literal

import flax.linen as nn
import jax

from convjax import ops
from convjax.layers import ActivationName, ClassifierHead, ConvNormAct, SqueezeExcite
from convjax.models.base import BlockModel
from convjax.models.inverted_residual import InvertedResidual, round_channels
from convjax.norms import ModuleFactory

_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
"""The paper's table 1, B0: expansion, kernel, stride of the first block, channels, blocks."""


class EfficientNet(BlockModel):
    """Inverted residuals with squeeze-and-excitation, scaled in width, depth and resolution together.

    The Lite networks have no squeeze-and-excitation, and keep stem, head and the number of blocks of their
    first and last stage at every scale.
    """

    activation: ActivationName = "silu"
    """Nonlinearity."""
    width_factor: float = 1.0
    """What B0's channels are multiplied by, and rounded to multiples of 8."""
    depth_factor: float = 1.0
    """What B0's blocks in each stage are multiplied by, and rounded up."""
    variant: Literal["standard", "lite"] = "standard"
    """lite: the networks for integer arithmetic."""
    padding: Literal["symmetric", "same"] = "symmetric"
    """Where strided convolutions pad: on all sides as in PyTorch, or rather at the end as in TensorFlow."""
    batch_epsilon: float = 1e-3
    """What a batch norm adds to the variance; torchvision has 1e-5 in B0 to B4."""
    batch_decay: float = 0.99
    """What a batch norm's running statistics are multiplied by at each step."""
    drop_path: float = 0.2
    """Probability of dropping a branch at the network's end; it grows linearly from 0 at the first block."""
    dropout: float = 0.2
    """Share of features dropped before the classifier."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train, batch_epsilon=self.batch_epsilon, batch_decay=self.batch_decay)
        lite = self.variant == "lite"
        padding: ops.Padding | None = "SAME" if self.padding == "same" else None
        features = 32 if lite else round_channels(32 * self.width_factor)
        x = ConvNormAct(layers, features, 3, 2, padding=padding, name="stem")(images)
        depths = self.depths()
        done = 0
        for stage, (expansion, kernel, first_stride, channels, _) in enumerate(_STAGES, start=1):
            for i in range(1, depths[stage - 1] + 1):
                squeeze: ModuleFactory | None = None
                if not lite:  # a quarter of the block's input, not of what it expands to
                    squeeze = partial(SqueezeExcite, layers, hidden=max(1, x.shape[-1] // 4))
                block = self.recomputed(InvertedResidual)(
                    layers,
                    features=round_channels(channels * self.width_factor),
                    expanded=x.shape[-1] * expansion,
                    kernel_size=kernel,
                    stride=first_stride if i == 1 else 1,
                    padding=padding,
                    squeeze=squeeze,
                    drop_path=self.drop_path * done / sum(depths),
                    train=train,
                    name=f"stage{stage}_block{i}",
                )
                x = block(x)
                done += 1
        x = ConvNormAct(layers, 1280 if lite else 4 * x.shape[-1], 1, name="last")(x)
        return ClassifierHead(self.num_classes, train, self.dropout, name="head")(x)

    def depths(self) -> tuple[int, ...]:
        """Returns the number of blocks of each stage."""
        scaled = [math.ceil(blocks * self.depth_factor) for *_, blocks in _STAGES]
        if self.variant == "lite":
            scaled[0], scaled[-1] = _STAGES[0][-1], _STAGES[-1][-1]
        return tuple(scaled)
