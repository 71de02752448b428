"""The state of a run: everything that a step reads and writes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import flax.struct
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from convjax.train import averaging
from convjax.train.loss_scale import LossScale

STREAMS = ("init", "augment", "dropout", "flip")


class TrainState(flax.struct.PyTreeNode):
    """Attributes:
    step: int32 scalar, steps done.
    params: float32 parameters.
    batch_stats: running statistics of the batch norms; empty without them.
    opt_state: state of the optimizer.
    ema: moving averages of `params` and `batch_stats`, under these names; empty without them.
    skipped: int32 scalar, steps whose update was left out because loss or gradient were not finite.
    loss_scale: `LossScale` of a float16 network; empty without it.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    skipped: jax.Array
    loss_scale: Any

    def updates(self) -> jax.Array:
        """Returns the number of updates made, which is what the optimizer has counted."""
        return self.step - self.skipped - (self.loss_scale.overflows if self.loss_scale else 0)

    def evaluated(self) -> dict[str, Any]:
        """Returns the variables to evaluate with: moving averages, or those of the optimizer, where there are some."""
        return self.ema or {
            "params": averaging.evaluated(self.params, self.opt_state),
            "batch_stats": self.batch_stats,
        }


def stream(seed: int | jax.Array, name: str) -> jax.Array:
    """Returns the key from which all randomness of one kind is derived: a function of seed and name alone."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))


def init(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image: tuple[int, int, int],
    seed: int | jax.Array,
    ema: bool = False,
    taken: Mapping[str, Any] = MappingProxyType({}),
) -> TrainState:
    """Returns the state before the first step.

    Args:
        model: called as `model(images, train=...)`.
        optimizer: whose state is initialised.
        image: (height, width, channels).
        seed: the run's seed.
        ema: whether moving averages are kept; they start from the initial values.
        taken: variables to take instead of initial ones, by path, as `params/stem/conv/kernel`.
    """
    variables = model.init(stream(seed, "init"), jnp.zeros((1, *image)), train=False)
    if taken:
        flat = flax.traverse_util.flatten_dict(variables, sep="/")
        variables = flax.traverse_util.unflatten_dict({**flat, **taken}, sep="/")
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        # Copies, since a step donates its state: no two leaves may share a buffer.
        ema=jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats}) if ema else {},
        skipped=jnp.zeros((), jnp.int32),
        loss_scale=LossScale.create() if getattr(model, "dtype", None) == "float16" else {},
    )
