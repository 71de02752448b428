"""Class activation maps: where in a layer's image the evidence for a class lies."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from convjax.errors import UsageError
from convjax.inspect.attribution import chosen
from convjax.inspect.features import output_of, perturbed


def grad_cam(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, classes: jax.Array, part: str
) -> jax.Array:
    """Returns Grad-CAM at a layer, float32 `[N, h, w]`, at least 0.

        ReLU(sum over k of a_k A_k),   a_k = mean over places of the class logit's gradient by channel A_k

    At the last feature map of a network of global average pooling and a linear layer this is the class activation
    map (Zhou et al. 2015, arXiv:1512.04150), less what is negative, divided by the number of places.
    Source: Selvaraju et al. 2016, "Grad-CAM", arXiv:1610.02391, equations 1 and 2.

    Args:
        model: called as `model(images, train=...)`, and as it is.
        variables: its variables.
        images: normalised images `[N, H, W, C]`.
        classes: int `[N]`, whose logit is asked about.
        part: a layer's name in `convjax.features`.

    Raises:
        UsageError: there is no such layer, or its output is no `[N, h, w, c]`.
    """
    values, grads = _at(model, variables, images, classes, part)
    return nn.relu((grads.mean(axis=(1, 2), keepdims=True) * values).sum(axis=-1))


def grad_cam_plus_plus(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, classes: jax.Array, part: str
) -> jax.Array:
    """Returns Grad-CAM++ at a layer, float32 `[N, h, w]`, at least 0.

        ReLU(sum over k of w_k A_k),   w_k = sum over places of alpha * ReLU(g),
        alpha = g^2 / (2 g^2 + S_k g^3),   S_k = sum over places of A_k,   g the class logit's gradient by A_k

    (0 where g is), which several objects of a class do not dilute. The class score is the exponential of the logit,
    whose factor changes no map by more than its scale, and is left out.
    Source: Chattopadhyay et al. 2017, "Grad-CAM++", arXiv:1710.11063, equations 5, 6 and 19.

    The arguments and errors are those of `grad_cam`.
    """
    values, grads = _at(model, variables, images, classes, part)
    square = grads**2
    divisor = 2 * square + values.sum(axis=(1, 2), keepdims=True) * grads**3
    alpha = jnp.where(square > 0, square / jnp.where(divisor == 0, 1, divisor), 0)
    weights = (alpha * nn.relu(grads)).sum(axis=(1, 2), keepdims=True)
    return nn.relu((weights * values).sum(axis=-1))


def _at(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array, classes: jax.Array, part: str
) -> tuple[jax.Array, jax.Array]:
    """Returns a layer's output and the gradient of the class logits by it, float32 `[N, h, w, c]`."""
    values = output_of(model, variables, images, part)
    if getattr(values, "ndim", 0) != 4:
        raise UsageError(f"the output of {part!r} is no batch of images [N, h, w, c]: it has no class activation map")
    grads = jax.grad(lambda change: chosen(perturbed(model, variables, images, part, change), classes).sum())(
        jnp.zeros_like(values)
    )
    return values.astype(jnp.float32), grads.astype(jnp.float32)
