"""The norms that a network can be built with, chosen by name."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax.ops import channels

NormName: TypeAlias = Literal["batch", "group", "layer", "none"]
Initializer: TypeAlias = jax.nn.initializers.Initializer
Moments: TypeAlias = tuple[jax.Array, jax.Array]
"""Mean and biased variance of each channel, `[C]`."""


class ModuleFactory(Protocol):
    """A module class with some of its fields filled in; called with the rest, it makes the module."""

    def __call__(self, *args: Any, **fields: Any) -> Callable[..., jax.Array]: ...


class GroupNorm(nn.Module):
    """Normalises each image over its pixels and a group of channels (Wu and He 2018, arXiv:1803.08494).

    A group has `gcd(C, group_size)` channels; 8 give the paper's 32 groups at 256 channels.
    """

    group_size: int = 8
    dtype: Any = jnp.float32
    use_scale: bool = True
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = math.gcd(x.shape[-1], self.group_size)
        norm = nn.GroupNorm(
            num_groups=None,
            group_size=size,
            epsilon=1e-5,
            dtype=self.dtype,
            use_scale=self.use_scale,
            scale_init=self.scale_init,
            use_fast_variance=False,
            name="group",
        )
        return norm(x)


class Bias(nn.Module):
    """Adds a learned number to each channel: what stands in a norm's place when there is none.

    Convolutions before a norm have no bias, since the norm's would make it redundant; without a norm they
    need one, or an ablation of the norm would take away more than the norm. Where the parameters hold a
    `scale`, which `convjax.interop.fold` leaves of a norm that no convolution can take, it multiplies first.
    """

    dtype: Any = jnp.float32
    scale_init: Initializer | None = None  # a norm has one; here there is nothing to scale
    use_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
        x = x.astype(self.dtype)
        if self.has_variable("params", "scale"):
            x *= self.get_variable("params", "scale").astype(self.dtype)
        return x + bias.astype(self.dtype)


def batch_moments(x: jax.Array) -> Moments:
    """Returns mean and biased variance of each channel of `[..., C]`, float32 or wider.

    Those of a concatenation of channels are the concatenation of its parts' own.
    """
    return channels.moments(_wide(x))


def no_moments(x: jax.Array) -> None:
    """Stands for `batch_moments` where no norm takes them."""


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class BatchNorm(nn.BatchNorm):
    """Linen's batch norm, with variances in two passes, built on `convjax.ops.channels`; channels are the last axis.

    Its values are Linen's; its gradient takes two sums over the pixels, where autodiff of Linen's takes four, and CPUs
    have kernels for them.
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
        moments: Moments | None = None,
    ) -> jax.Array:
        """Returns `x` normalised; `moments` are its `batch_moments`, where they are known already."""
        if mask is not None:
            raise ValueError("this batch norm takes no mask")
        stored = nn.merge_param("use_running_average", self.use_running_average, use_running_average)
        shape = (x.shape[-1],)
        running = (
            self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32),
            self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32),
        )
        dtype = self.dtype or jnp.result_type(x, self.param_dtype)
        if stored:
            mean, variance = (statistic.value for statistic in running)
        else:
            mean, variance = self._everywhere(*(batch_moments(x) if moments is None else moments))
            if not self.is_initializing():
                for statistic, new in zip(running, (mean, variance), strict=True):
                    statistic.value = self.momentum * statistic.value + (1 - self.momentum) * new
        factor = jax.lax.rsqrt(variance + self.epsilon)
        if self.use_scale:
            factor *= self.param("scale", self.scale_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, shape, self.param_dtype) if self.use_bias else None
        if stored:
            y = (x - mean) * factor
            return (y if bias is None else y + bias).astype(dtype)
        return channels.scaled(_wide(x), mean, factor, jnp.zeros_like(mean) if bias is None else bias).astype(dtype)

    def _everywhere(self, mean: jax.Array, variance: jax.Array) -> Moments:
        """Returns mean and biased variance of each channel over all devices of `axis_name`."""
        if self.axis_name is None or self.is_initializing():
            return mean, variance
        everywhere = jax.lax.pmean(mean, self.axis_name)
        return everywhere, jax.lax.pmean(variance + jnp.square(mean - everywhere), self.axis_name)


def norm_factory(
    name: NormName, *, train: bool, dtype: Any, batch_epsilon: float = 1e-5, batch_decay: float = 0.9
) -> ModuleFactory:
    """Returns the module class for the norm called `name`, with its fields filled in.

    `batch` (Ioffe and Szegedy 2015, arXiv:1502.03167): running statistics decay by `batch_decay` a step
    (PyTorch's momentum is 1 - decay) and hold the biased variance, to which `batch_epsilon` is added. `group`:
    see `GroupNorm`. `layer`: over the channels of each pixel, as in ConvNeXt (Liu et al. 2022,
    arXiv:2201.03545). `none`: `Bias`. Variances are computed in two passes: in one, as E[x^2] - E[x]^2,
    float32 loses them where the mean is large.
    """
    if name == "batch":
        return partial(
            BatchNorm,
            use_running_average=not train,
            momentum=batch_decay,
            epsilon=batch_epsilon,
            dtype=dtype,
        )
    if name == "group":
        return partial(GroupNorm, dtype=dtype)
    if name == "layer":
        return partial(nn.LayerNorm, epsilon=1e-6, dtype=dtype, use_fast_variance=False)
    return partial(Bias, dtype=dtype)
