"""The weights that a schedule-free optimizer is to be evaluated with."""

from typing import Any

import jax
import optax


def evaluated(params: Any, opt_state: Any) -> Any:
    """Returns the parameters to evaluate with: a schedule-free optimizer's averages x, any other's parameters.

    Such an optimizer takes gradients at `y = b x + (1 - b) z`, which are the parameters of the state, and moves z
    (Defazio et al. 2024, arXiv:2405.15682). What it leaves frozen is the same in all three.
    """
    kind = optax.contrib.ScheduleFreeState
    found = [s for s in jax.tree.leaves(opt_state, is_leaf=lambda s: isinstance(s, kind)) if isinstance(s, kind)]
    if not found:
        return params
    (state,) = found

    def average(z: Any, y: jax.Array) -> jax.Array:
        return y if isinstance(z, optax.MaskedNode) else (y - (1 - state.b1) * z) / state.b1

    return jax.tree.map(average, state.z, params, is_leaf=lambda z: isinstance(z, optax.MaskedNode))
