"""Flax modules on top of `convjax.ops`: what every architecture is built from.

A model builds `Layers` once from its own fields and hands it to its blocks. No block names a norm, an
activation or a compute dtype itself, so that changing one changes every place at once.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.norms import (
    Initializer,
    ModuleFactory,
    Moments,
    NormName,
    batch_moments,
    no_moments,
    norm_factory,
)
from convjax.ops.geometry import pair

ActivationName: TypeAlias = Literal["relu", "relu6", "gelu", "silu", "hard_swish", "tanh"]
DtypeName: TypeAlias = Literal["float32", "bfloat16", "float16"]
Activation: TypeAlias = Callable[[jax.Array], jax.Array]


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """A sigmoid of three straight pieces, `clip(x / 6 + 1/2, 0, 1)` (Howard et al. 2019, arXiv:1905.02244)."""
    return jnp.clip(x / 6 + 0.5, 0, 1)


ACTIVATIONS: dict[ActivationName, Activation] = {
    "relu": ops.relu,
    "relu6": ops.relu6,
    "gelu": partial(nn.gelu, approximate=False),
    "silu": nn.silu,
    "hard_swish": lambda x: x * hard_sigmoid(x),
    "tanh": jnp.tanh,
}

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal, variance 2 / fan-out: He et al. 2015, arXiv:1502.01852, equation 14."""


class Conv(nn.Module):
    """Convolution with a learned kernel: `[N, H, W, C]` to `[N, H_out, W_out, features]`.

    Attributes:
        features: output channels.
        kernel_size: height and width of the kernel.
        stride: see `convjax.ops.conv2d`, as `dilation` and `groups`.
        padding: see `convjax.ops.Padding`; None adds `dilation * (kernel_size - 1) // 2` on every side, which
            with stride 1 and an odd kernel keeps the size.
        use_bias: whether to add a learned number to each output channel.
        dtype: what the convolution computes in; the parameters stay float32.
        kernel_init: initialiser of the kernel.
    """

    features: int
    kernel_size: ops.Size = 3
    stride: ops.Size = 1
    padding: ops.Padding | None = None
    dilation: ops.Size = 1
    groups: int = 1
    use_bias: bool = False
    dtype: Any = jnp.float32
    kernel_init: Initializer = he_normal

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = pair(self.kernel_size, "kernel_size")
        padding = self.padding
        if padding is None:
            rows, columns = (d * (w - 1) // 2 for w, d in zip(window, pair(self.dilation, "dilation"), strict=True))
            padding = ((rows, rows), (columns, columns))
        shape = (*window, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = ops.conv2d(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.dtype)
        return y


@dataclasses.dataclass(frozen=True)
class Layers:
    """Convolution, norm and activation with a model's choices filled in.

    Attributes:
        conv: makes a convolution: `conv(features, kernel_size, stride=..., name=...)`.
        norm: makes a norm: `norm(name=...)`.
        activation: the nonlinearity.
        moments: what norms would compute of an array that several of them see, to be handed to each as `moments`;
            returns None where norms take none.
    """

    conv: ModuleFactory
    norm: ModuleFactory
    activation: Activation
    moments: Callable[[jax.Array], Moments | None]

    @classmethod
    def build(
        cls,
        *,
        norm: NormName,
        activation: ActivationName,
        dtype: DtypeName,
        train: bool,
        kernel_init: Initializer = he_normal,
        batch_epsilon: float = 1e-5,
        batch_decay: float = 0.9,
    ) -> "Layers":
        compute = jnp.dtype(dtype)
        return cls(
            conv=partial(Conv, dtype=compute, kernel_init=kernel_init),
            norm=norm_factory(norm, train=train, dtype=compute, batch_epsilon=batch_epsilon, batch_decay=batch_decay),
            activation=ACTIVATIONS[activation],
            moments=batch_moments if norm == "batch" and train else no_moments,
        )


class ConvNormAct(nn.Module):
    """Convolution, norm and, unless `activate` is off, activation: `[N, H, W, C]` to `[N, H_out, W_out, features]`."""

    layers: Layers
    features: int
    kernel_size: ops.Size = 3
    stride: ops.Size = 1
    groups: int = 1
    activate: bool = True
    padding: ops.Padding | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = self.layers.conv(
            self.features,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            name="conv",
        )
        x = conv(x)
        x = self.layers.norm(name="norm")(x)
        return self.layers.activation(x) if self.activate else x


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all of them (Hu et al. 2017, arXiv:1709.01507).

        y = x * gate(W2 activation(W1 mean_pixels(x)))

    `[N, H, W, C]` to the same; the hidden layer has `C // reduction` units, or `hidden` where that is given.
    """

    layers: Layers
    reduction: int = 16
    hidden: int | None = None
    gate: Activation = nn.sigmoid

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if self.hidden is None and channels < self.reduction:
            raise ValueError(f"SqueezeExcite cannot reduce {channels} channels by {self.reduction}")
        hidden = self.hidden or channels // self.reduction
        gate = ops.global_avg_pool(x)[:, None, None, :]
        gate = self.layers.conv(hidden, 1, use_bias=True, name="squeeze")(gate)
        gate = self.layers.activation(gate)
        gate = self.layers.conv(channels, 1, use_bias=True, name="excite")(gate)
        return x * self.gate(gate)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): drops a residual branch, image by image.

    In training an image's branch is zero with probability `rate`, and divided by `1 - rate` otherwise, so
    that its expectation is unchanged; in evaluation it passes as it is. Draws from the `dropout` stream.
    """

    rate: float
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not 0 <= self.rate < 1:
            raise ValueError(f"DropPath's rate is {self.rate}: it must be from 0 to below 1")
        shared = tuple(range(1, x.ndim))
        return nn.Dropout(self.rate, broadcast_dims=shared, deterministic=not self.train, name="dropout")(x)


class DropBlock(nn.Module):
    """Drops square blocks of pixels, of all channels at once (Ghiasi et al. 2018, arXiv:1810.12890).

    In training each place where a block fits begins one with the probability that drops a share `rate` of the pixels if
    blocks did not overlap; what is left of an image is scaled by the inverse of its share (the paper takes the share of
    the whole batch). Blocks are `size` pixels wide, or as large as the image. Draws from the `dropout` stream.
    """

    rate: float
    size: int
    train: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if not 0 <= self.rate < 1:
            raise ValueError(f"DropBlock's rate is {self.rate}: it must be from 0 to below 1")
        if not self.train or not self.rate:
            return x
        count, height, width, _ = x.shape
        size = min(self.size, height, width)
        places = (height - size + 1, width - size + 1)
        share = min(self.rate * height * width / (size**2 * places[0] * places[1]), 0.999)
        # Dropout of ones, since its masks are those of single examples; see `convjax.train.whole_batch`.
        ones = jnp.ones((count, *places, 1), x.dtype)
        begins = nn.Dropout(share, deterministic=False, name="dropout")(ones) == 0
        edge = ((0, 0), (size - 1, size - 1), (size - 1, size - 1), (0, 0))
        dropped = ops.max_pool(jnp.pad(begins.astype(x.dtype), edge), size, stride=1, padding=0)
        kept = 1 - dropped
        return x * kept / jnp.maximum(kept.mean((1, 2, 3), keepdims=True), 1 / (height * width))


class ClassifierHead(nn.Module):
    """Mean over the pixels, dropout, and a linear layer: `[N, H, W, C]` to float32 logits `[N, num_classes]`."""

    num_classes: int
    train: bool
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ops.global_avg_pool(x.astype(jnp.float32))
        x = nn.Dropout(self.dropout, deterministic=not self.train, name="dropout")(x)
        return nn.Dense(self.num_classes, name="dense")(x)
