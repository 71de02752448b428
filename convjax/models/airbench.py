"""The network of the CIFAR-10 speed records: Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", arXiv:2404.00498."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from convjax import ops
from convjax.errors import UsageError
from convjax.layers import ActivationName, Layers
from convjax.models.base import BlockModel
from convjax.norms import Initializer

_uniform: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's: uniform, between plus and minus 1 / sqrt(fan-in)."""


def identity_first(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initialises a kernel so that its first `C_in` outputs repeat the inputs; the others are uniform (section 3.3)."""
    height, width, inputs, outputs = shape
    copies = min(inputs, outputs)
    kernel = _uniform(key, shape, dtype).at[..., :copies].set(0)
    return kernel.at[height // 2, width // 2, jnp.arange(copies), jnp.arange(copies)].set(1)


def whitening_kernel(images: jax.Array, epsilon: float = 5e-4) -> jax.Array:
    """Returns a kernel whose outputs on patches of these images are uncorrelated, and its negative (section 3.2).

    Args:
        images: normalised training images `[N, H, W, C]`; some thousands do.
        epsilon: added to the patches' variances, so that faint directions are not blown up.

    Returns:
        `[2, 2, C, 8 C]`: eigenvectors of the patches' second moments by falling eigenvalue,
        each divided by its root, then all of them negated.
    """
    height, width, channels = images.shape[1:]
    shifted = [images[:, i : height - 1 + i, j : width - 1 + j] for i in (0, 1) for j in (0, 1)]
    patches = jnp.stack(shifted, axis=-2).reshape(-1, 4 * channels)
    values, vectors = jnp.linalg.eigh(patches.T @ patches / len(patches))
    scaled = (vectors / jnp.sqrt(values + epsilon))[:, ::-1]
    return jnp.concatenate([scaled, -scaled], axis=1).reshape(2, 2, channels, -1)


class Whitening(nn.Module):
    """A 2x2 convolution to twice as many channels as a patch has values: `[N, H, W, C]` to `[N, H - 1, W - 1, 8 C]`.

    The bias is learned; the kernel only if `learned`.
    """

    learned: bool
    start: Literal["zeros", "uniform"]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = 8 * x.shape[-1]
        kernel = self.param("kernel", _uniform, (2, 2, x.shape[-1], features), jnp.float32)
        bias = self.param("bias", self._bias, (features,), 4 * x.shape[-1])
        if not self.learned:
            kernel = lax.stop_gradient(kernel)
        return ops.conv2d(x.astype(self.dtype), kernel.astype(self.dtype), padding="VALID") + bias.astype(self.dtype)

    def _bias(self, key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
        if self.start == "zeros":
            return jnp.zeros(shape)
        return jax.random.uniform(key, shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


class ConvGroup(nn.Module):
    """3x3 convolution, 2x2 max-pooling, norm, activation, and 3x3 convolution, norm, activation. Norms only shift."""

    layers: Layers
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ops.max_pool(self.layers.conv(self.features, 3, name="conv1")(x), 2)
        x = self.layers.activation(self.layers.norm(use_scale=False, name="norm1")(x))
        x = self.layers.conv(self.features, 3, name="conv2")(x)
        return self.layers.activation(self.layers.norm(use_scale=False, name="norm2")(x))


class AirBench(BlockModel):
    """A 2x2 convolution that whitens, three groups of two convolutions, and a linear layer without bias.

    The whitening kernel is not trained. `convjax train` computes it from training images; a state that is initialised
    otherwise has a random one. Weight decay must leave `whiten/kernel` out.
    """

    activation: ActivationName = "gelu"
    """Nonlinearity."""
    stage_widths: tuple[int, ...] = (64, 256, 256)
    """Channels of each group."""
    whitening_images: int = 5000
    """Training images that the first kernel is computed from; 0 leaves it at random."""
    train_whitening: bool = False
    """Whether the first kernel has a gradient."""
    whitening_bias: Literal["zeros", "uniform"] = "zeros"
    """What the first layer's bias starts at: zeros, or uniform, between plus and minus 1 / sqrt(fan-in)."""
    batch_epsilon: float = 1e-12
    """What a batch norm adds to the variance."""
    batch_decay: float = 0.6
    """What a batch norm's running statistics are multiplied by at each step."""
    logit_scale: float = 1 / 9
    """What the logits are multiplied by."""

    def __post_init__(self) -> None:
        if self.whitening_images < 0:
            raise UsageError(f"model.whitening_images is {self.whitening_images}: it must be at least 0")
        super().__post_init__()

    def variables_from(self, images: Callable[[int], jax.Array]) -> dict[str, jax.Array]:
        """Returns the whitening kernel; see `convjax.train.from_images.ComputesVariables`."""
        if not self.whitening_images:
            return {}
        return {"params/whiten/kernel": whitening_kernel(images(self.whitening_images))}

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        layers = self.layers(
            train=train,
            kernel_init=identity_first,
            batch_epsilon=self.batch_epsilon,
            batch_decay=self.batch_decay,
        )
        whiten = Whitening(self.train_whitening, self.whitening_bias, jnp.dtype(self.dtype), name="whiten")
        x = layers.activation(whiten(images))
        for i, features in enumerate(self.stage_widths, start=1):
            x = self.recomputed(ConvGroup)(layers, features, name=f"group{i}")(x)
        x = jnp.max(x, axis=(1, 2)).astype(jnp.float32)
        return self.logit_scale * nn.Dense(self.num_classes, use_bias=False, name="head")(x)
