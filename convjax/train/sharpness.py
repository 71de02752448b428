"""Sharpness-aware minimisation (Foret et al. 2020, arXiv:2010.01412)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax


def uphill(params: Any, grads: Any, radius: float) -> Any:
    """Returns the parameters at a distance in the gradient's direction: `w + radius * g / |g|`.

    There the gradient is taken by which those before are updated. This is not optax's `sam`: that takes each of the two
    gradients for a step of the optimizer, or asks for gradients of parameters among which the frozen ones are missing.
    """
    norm = optax.tree.norm(grads)
    scale = jnp.where(norm > 0, radius / norm, 0)
    return jax.tree.map(lambda p, g: p + scale * g, params, grads)
