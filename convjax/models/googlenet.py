"""GoogLeNet: Szegedy et al. 2014, "Going deeper with convolutions", arXiv:1409.4842; with norms, as in torchvision."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.layers import ClassifierHead, ConvNormAct, Layers
from convjax.models.base import BlockModel

AUXILIARY = "auxiliary_logits"
"""The collection into which the auxiliary classifiers put their logits in training, for the step to find there."""

_STAGES: tuple[tuple[tuple[int, int, int, int, int, int], ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
"""The paper's table 1, inception (3a) to (5b): #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj."""
_AUXILIARY_AFTER = {"inception4a": "auxiliary1", "inception4d": "auxiliary2"}


class Inception(nn.Module):
    """Four branches side by side, whose channels are concatenated (figure 2b).

    The branch of 5x5 convolutions has 3x3 ones, an error of torchvision's that its weights have kept.
    """

    layers: Layers
    channels: tuple[int, int, int, int, int, int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one, three_reduced, three, five_reduced, five, pooled = self.channels
        y = ConvNormAct(self.layers, three_reduced, 1, name="branch2_reduce")(x)
        z = ConvNormAct(self.layers, five_reduced, 1, name="branch3_reduce")(x)
        branches = [
            ConvNormAct(self.layers, one, 1, name="branch1")(x),
            ConvNormAct(self.layers, three, 3, name="branch2")(y),
            ConvNormAct(self.layers, five, 3, name="branch3")(z),
            ConvNormAct(self.layers, pooled, 1, name="branch4")(ops.max_pool(x, 3, stride=1, padding=1)),
        ]
        return jnp.concatenate(branches, axis=-1)


class AuxiliaryHead(nn.Module):
    """A classifier in the middle of the network (section 5): `[N, H, W, C]` to float32 logits `[N, num_classes]`."""

    layers: Layers
    num_classes: int
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ConvNormAct(self.layers, 128, 1, name="reduce")(ops.adaptive_avg_pool(x, 4))
        x = x.reshape(x.shape[0], -1)
        x = self.layers.activation(nn.Dense(1024, dtype=x.dtype, name="dense")(x))
        x = nn.Dropout(0.7, deterministic=not self.train, name="dropout")(x)
        return nn.Dense(self.num_classes, name="head")(x.astype(jnp.float32))


class GoogLeNet(BlockModel):
    """A stem of three convolutions and nine inception modules."""

    auxiliary_heads: bool = False
    """Whether two classifiers in the middle take part in the loss."""
    batch_epsilon: float = 1e-3
    """What a batch norm adds to the variance."""
    dropout: float = 0.2
    """Share of features dropped before the classifier (the paper has 0.4)."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(train=train, batch_epsilon=self.batch_epsilon)
        x = ConvNormAct(layers, 64, 7, 2, name="stem1")(images)
        x = ConvNormAct(layers, 64, 1, name="stem2")(_max_pool(x, 3))
        x = ConvNormAct(layers, 192, 3, name="stem3")(x)
        for stage, modules in enumerate(_STAGES, start=3):
            x = _max_pool(x, 2 if stage == 5 else 3)
            for letter, channels in zip("abcde", modules, strict=False):
                name = f"inception{stage}{letter}"
                x = self.recomputed(Inception)(layers, channels, name=name)(x)
                if self.auxiliary_heads and name in _AUXILIARY_AFTER:
                    self._auxiliary(layers, _AUXILIARY_AFTER[name], x, train)
        return ClassifierHead(self.num_classes, train, self.dropout, name="head")(x)

    def _auxiliary(self, layers: Layers, name: str, x: jax.Array, train: bool) -> None:
        """Puts an auxiliary classifier's logits into their collection; `init` makes its variables in any mode."""
        if train or self.is_initializing():
            logits = AuxiliaryHead(layers, self.num_classes, train, name=name)(x)
            if not self.is_initializing():
                self.sow(AUXILIARY, f"{name}_logits", logits)


def _max_pool(x: jax.Array, window: int) -> jax.Array:
    """Pools with stride 2; pixels that are left over at the end make a window of their own (PyTorch's ceil_mode)."""
    rows, columns = ((0, (length - window) % 2) for length in x.shape[1:3])
    return ops.max_pool(x, window, stride=2, padding=(rows, columns))
