"""Which pixels an answer depends on: the gradient of a class's logit by the image, and what is made of it.

Every function takes a network as it is, its variables and normalised images `[N, H, W, C]`, and returns float32 of
that shape: what each pixel's value has to do with the logit. All may be called inside of `jax.jit`.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from convjax.errors import UsageError


def logits(model: nn.Module, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
    """Returns the float32 logits `[N, K]` of normalised images in evaluation mode."""
    return jnp.asarray(model.apply(variables, images, train=False), jnp.float32)


def chosen(outputs: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns of each row of `[N, K]` the entry of its class: `[N]`."""
    return jnp.take_along_axis(outputs, classes[:, None], axis=-1)[:, 0]


def gradient(model: nn.Module, variables: Mapping[str, Any], images: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the gradient of each image's class logit by its pixels.

    Source: Simonyan, Vedaldi and Zisserman 2013, "Deep inside convolutional networks", arXiv:1312.6034, section 3.

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        images: normalised images `[N, H, W, C]`.
        classes: int `[N]`, whose logit is asked about.
    """
    return jax.grad(lambda x: chosen(logits(model, variables, x), classes).sum())(images)


def smooth_gradient(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    classes: jax.Array,
    *,
    sigma: float | jax.Array = 0.15,
    samples: int = 25,
    seed: int = 0,
) -> jax.Array:
    """Returns SmoothGrad: the mean gradient over so many copies of an image with Gaussian noise.

    Source: Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise", arXiv:1706.03825.

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        images: normalised images `[N, H, W, C]`.
        classes: int `[N]`, whose logit is asked about.
        sigma: the noise's deviation as a share of each image's range from its smallest to its largest value; 0 gives
            the gradient itself. The paper finds 0.1 to 0.2 good.
        samples: noisy copies of each image.
        seed: of the noise.
    """
    scale = sigma * (images.max(axis=(1, 2, 3), keepdims=True) - images.min(axis=(1, 2, 3), keepdims=True))

    def add(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        noisy = images + scale * jax.random.normal(key, images.shape)
        return total + gradient(model, variables, noisy, classes), None

    total, _ = jax.lax.scan(add, jnp.zeros(images.shape), jax.random.split(jax.random.key(seed), samples))
    return total / samples


def integrated_gradients(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    classes: jax.Array,
    *,
    baseline: jax.Array | float = 0.0,
    steps: int = 64,
) -> jax.Array:
    """Returns integrated gradients: what each pixel adds to the logit on the straight way from a baseline.

        (x - x0) * integral over a from 0 to 1 of the gradient at x0 + a (x - x0)

    by the midpoint rule. They sum, over an image, to its logit less that of the baseline (section 3, "completeness"),
    up to the error of the rule.
    Source: Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", arXiv:1703.01365.

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        images: normalised images `[N, H, W, C]`.
        classes: int `[N]`, whose logit is asked about.
        baseline: normalised pixels where the way begins; 0 is the mean colour of the training images.
        steps: points on the way.
    """
    away = images - baseline

    def add(total: jax.Array, share: jax.Array) -> tuple[jax.Array, None]:
        return total + gradient(model, variables, baseline + share * away, classes), None

    total, _ = jax.lax.scan(add, jnp.zeros(images.shape), (jnp.arange(steps) + 0.5) / steps)
    return away * total / steps


def occlusion(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    classes: jax.Array,
    *,
    window: int,
    stride: int,
    fill: float = 0.0,
) -> jax.Array:
    """Returns by how much the logit falls where a square is covered, `[N, H, W, 1]`.

    Of a pixel it is the mean over all places of the square that cover it; places reach from one border to the other.
    Source: Zeiler and Fergus 2013, "Visualizing and understanding convolutional networks", arXiv:1311.2901,
    section 4.2.

    Args:
        model: called as `model(images, train=...)`.
        variables: its variables.
        images: normalised images `[N, H, W, C]`.
        classes: int `[N]`, whose logit is asked about.
        window: side of the square in pixels.
        stride: pixels between its places.
        fill: normalised value in the square; 0 is the mean colour of the training images.

    Raises:
        UsageError: the stride is larger than the square, which would leave pixels out.
    """
    if not 1 <= stride <= window:
        raise UsageError(f"stride is {stride}: it must be from 1 to the window's {window} pixels")
    tops, lefts = (_places(length, window, stride) for length in images.shape[1:3])
    places = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    rows, columns = (jnp.arange(length) for length in images.shape[1:3])
    whole = chosen(logits(model, variables, images), classes)

    def add(sums: tuple[jax.Array, jax.Array], place: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        (top, left), (falls, covered) = place, sums
        across = (columns >= left) & (columns < left + window)
        mask = (((rows >= top) & (rows < top + window))[:, None] & across)[None, :, :, None]
        fall = whole - chosen(logits(model, variables, jnp.where(mask, fill, images)), classes)
        return (falls + mask * fall[:, None, None, None], covered + mask), None

    nothing = jnp.zeros((len(images), *images.shape[1:3], 1)), jnp.zeros((1, *images.shape[1:3], 1))
    (falls, covered), _ = jax.lax.scan(add, nothing, jnp.asarray(places))
    return falls / covered


def _places(length: int, window: int, stride: int) -> NDArray[np.int64]:
    """Returns where a window may begin; the last place ends at the border."""
    last = max(length - window, 0)
    return np.unique([*range(0, last, stride), last])
