"""The inverted residual that MobileNetV2, MobileNetV3 and EfficientNet are built from (arXiv:1801.04381)."""

import flax.linen as nn
import jax

from convjax import ops
from convjax.layers import ConvNormAct, DropPath, Layers
from convjax.norms import ModuleFactory


class InvertedResidual(nn.Module):
    """Widens by a 1x1 convolution, filters each channel, narrows by a linear 1x1 convolution (section 3.4).

    `[N, H, W, C]` to `[N, ceil(H / stride), ceil(W / stride), features]`; where these agree, the input is added.

    Attributes:
        layers: convolution, norm and activation.
        features: output channels.
        expanded: channels between the two 1x1 convolutions; as many as the input's leave the first out.
        kernel_size: of the depthwise convolution.
        stride: of the depthwise convolution.
        padding: of the depthwise convolution, see `convjax.layers.Conv`.
        squeeze: makes the squeeze-and-excitation after the depthwise convolution, None for none.
        drop_path: probability of dropping the branch.
        train: whether it is dropped.
    """

    layers: Layers
    features: int
    expanded: int
    kernel_size: int
    stride: int
    train: bool
    padding: ops.Padding | None = None
    squeeze: ModuleFactory | None = None
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        if self.expanded != x.shape[-1]:
            y = ConvNormAct(self.layers, self.expanded, 1, name="expand")(y)
        depthwise = ConvNormAct(
            self.layers,
            self.expanded,
            self.kernel_size,
            self.stride,
            groups=self.expanded,
            padding=self.padding,
            name="depthwise",
        )
        y = depthwise(y)
        if self.squeeze is not None:
            y = self.squeeze(name="squeeze_excite")(y)
        y = ConvNormAct(self.layers, self.features, 1, activate=False, name="project")(y)
        if self.stride > 1 or x.shape[-1] != self.features:
            return y
        return x + DropPath(self.drop_path, self.train, name="drop_path")(y)


def round_channels(channels: float) -> int:
    """Returns the multiple of 8 closest to `channels`, but at least 8 and at least 0.9 of them."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
