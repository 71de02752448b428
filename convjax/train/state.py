"""The state of a run: everything that a step reads and writes."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

STREAMS = ("init", "augment", "dropout")


class TrainState(flax.struct.PyTreeNode):
    """Attributes:
    step: int32 scalar, steps done.
    params: float32 parameters.
    batch_stats: running statistics of the batch norms; empty without them.
    opt_state: state of the optimizer.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


def stream(seed: int, name: str) -> jax.Array:
    """Returns the key from which all randomness of one kind is derived: a function of seed and name alone."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))


def init(
    model: nn.Module, optimizer: optax.GradientTransformation, image: tuple[int, int, int], seed: int
) -> TrainState:
    """Returns the state before the first step.

    Args:
        model: called as `model(images, train=...)`.
        optimizer: whose state is initialised.
        image: (height, width, channels).
        seed: the run's seed.
    """
    variables = model.init(stream(seed, "init"), jnp.zeros((1, *image)), train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(variables["params"]),
    )
