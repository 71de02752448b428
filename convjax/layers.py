"""Flax modules on top of `convjax.ops`: what every architecture is built from.

A model builds `Layers` once from its own fields and hands it to its blocks. No block names a norm, an
activation or a compute dtype itself, so that changing one changes every place at once.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax import ops
from convjax.ops.geometry import pair

NormName: TypeAlias = Literal["batch", "group", "layer", "none"]
ActivationName: TypeAlias = Literal["relu", "gelu", "silu", "tanh"]
DtypeName: TypeAlias = Literal["float32", "bfloat16"]
Activation: TypeAlias = Callable[[jax.Array], jax.Array]
Initializer: TypeAlias = jax.nn.initializers.Initializer

ACTIVATIONS: dict[ActivationName, Activation] = {
    "relu": nn.relu,
    "gelu": partial(nn.gelu, approximate=False),
    "silu": nn.silu,
    "tanh": jnp.tanh,
}

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal, variance 2 / fan-out: He et al. 2015, arXiv:1502.01852, equation 14."""


class ModuleFactory(Protocol):
    """A module class with some of its fields filled in; called with the rest, it makes the module."""

    def __call__(self, *args: Any, **fields: Any) -> Callable[..., jax.Array]: ...


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


class GroupNorm(nn.Module):
    """Normalises each image over its pixels and a group of channels (Wu and He 2018, arXiv:1803.08494).

    A group has `gcd(C, group_size)` channels; 8 give the paper's 32 groups at 256 channels.
    """

    group_size: int = 8
    dtype: Any = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = math.gcd(x.shape[-1], self.group_size)
        norm = nn.GroupNorm(
            num_groups=None,
            group_size=size,
            epsilon=1e-5,
            dtype=self.dtype,
            scale_init=self.scale_init,
            use_fast_variance=False,
            name="group",
        )
        return norm(x)


class Bias(nn.Module):
    """Adds a learned number to each channel: what stands in a norm's place when there is none.

    Convolutions before a norm have no bias, since the norm's would make it redundant; without a norm they
    need one, or an ablation of the norm would take away more than the norm.
    """

    dtype: Any = jnp.float32
    scale_init: Initializer | None = None  # a norm has one; here there is nothing to scale

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        return x.astype(self.dtype) + bias.astype(self.dtype)


def norm_factory(name: NormName, *, train: bool, dtype: Any) -> ModuleFactory:
    """Returns the module class for the norm called `name`, with its fields filled in.

    `batch` (Ioffe and Szegedy 2015, arXiv:1502.03167): running statistics decay by 0.9 a step (PyTorch's
    momentum of 0.1) and hold the biased variance. `group`: see `GroupNorm`. `layer`: over the channels of
    each pixel, as in ConvNeXt (Liu et al. 2022, arXiv:2201.03545). `none`: `Bias`. Variances are computed
    in two passes: in one, as E[x^2] - E[x]^2, float32 loses them where the mean is large.
    """
    if name == "batch":
        return partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            dtype=dtype,
            use_fast_variance=False,
        )
    if name == "group":
        return partial(GroupNorm, dtype=dtype)
    if name == "layer":
        return partial(nn.LayerNorm, epsilon=1e-6, dtype=dtype, use_fast_variance=False)
    return partial(Bias, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class Layers:
    """Convolution, norm and activation with a model's choices filled in.

    Attributes:
        conv: makes a convolution: `conv(features, kernel_size, stride=..., name=...)`.
        norm: makes a norm: `norm(name=...)`.
        activation: the nonlinearity.
    """

    conv: ModuleFactory
    norm: ModuleFactory
    activation: Activation

    @classmethod
    def build(
        cls,
        *,
        norm: NormName,
        activation: ActivationName,
        dtype: DtypeName,
        train: bool,
        kernel_init: Initializer = he_normal,
    ) -> "Layers":
        compute = jnp.dtype(dtype)
        return cls(
            conv=partial(Conv, dtype=compute, kernel_init=kernel_init),
            norm=norm_factory(norm, train=train, dtype=compute),
            activation=ACTIVATIONS[activation],
        )


class ConvNormAct(nn.Module):
    """Convolution, norm and, unless `activate` is off, activation: `[N, H, W, C]` to `[N, H_out, W_out, features]`."""

    layers: Layers
    features: int
    kernel_size: ops.Size = 3
    stride: ops.Size = 1
    groups: int = 1
    activate: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.layers.conv(self.features, self.kernel_size, stride=self.stride, groups=self.groups, name="conv")(x)
        x = self.layers.norm(name="norm")(x)
        return self.layers.activation(x) if self.activate else x


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from all of them (Hu et al. 2017, arXiv:1709.01507).

        y = x * sigmoid(W2 activation(W1 mean_pixels(x)))

    `[N, H, W, C]` to the same; the hidden layer has `C // reduction` units.
    """

    layers: Layers
    reduction: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        if channels < self.reduction:
            raise ValueError(f"SqueezeExcite cannot reduce {channels} channels by {self.reduction}")
        gate = ops.global_avg_pool(x)[:, None, None, :]
        gate = self.layers.conv(channels // self.reduction, 1, use_bias=True, name="squeeze")(gate)
        gate = self.layers.activation(gate)
        gate = self.layers.conv(channels, 1, use_bias=True, name="excite")(gate)
        return x * nn.sigmoid(gate)


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
        if not self.train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0],) + (1,) * (x.ndim - 1))
        return jnp.where(kept, x / keep, jnp.zeros_like(x))


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
