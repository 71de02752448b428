"""Muon: momentum made orthogonal, and what is kept of its kernels' size (Jordan 2024)."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from convjax.train.optim_config import OptimConfig
from convjax.train.patterns import matches, path_name


def matrices(params: Any, chosen: Iterable[str]) -> Any:
    """Returns as what matrix muon takes each parameter: a row for each input and place of a kernel, a column an output.

    None leaves a parameter to another optimizer.
    """

    def matrix(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        if leaf.ndim < 2 or not matches(path_name(path), chosen):
            return None
        return optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(matrix, params)


def muon_sgd(
    config: OptimConfig, rate: optax.Schedule, epsilon: float, added: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Returns the optimizer of airbench94_muon, but for `kept_norms`: muon for matrices, sgd for the rest.

    Momentum is the sum `m = b m + g`, and Nesterov's `g + b m` is what is made orthogonal, where optax's own muon takes
    averages of both, each corrected for its start. Updates are as long whatever a matrix's shape, and matrices do not
    decay: `kept_norms` holds them.

    Args:
        config: whose `muon` says what is a matrix.
        rate: learning rate of both.
        epsilon: added to the norm that a matrix is divided by before the iterations.
        added: adds decay to the gradients of the rest.
    """
    orthogonal = optax.contrib.scale_by_muon(
        ns_steps=config.muon_steps,
        beta=0.0,
        eps=epsilon,
        nesterov=False,
        weight_dimension_numbers=lambda params: matrices(params, config.muon),
    )
    parts = {
        "muon": optax.chain(optax.trace(config.momentum, config.nesterov), orthogonal),
        "sgd": optax.chain(added, optax.trace(config.sgd_momentum, config.nesterov)),
    }
    return optax.chain(
        optax.partition(
            parts, lambda params: jax.tree.map(lambda yes: "muon" if yes else "sgd", _chosen(params, config))
        ),
        optax.scale_by_learning_rate(rate),
    )


def kept_norms(config: OptimConfig) -> optax.GradientTransformation:
    """Returns what brings each of muon's matrices to the norm `sqrt(outputs)` before its update.

    Orthogonal updates of one length then turn all of them alike, as weight decay would bring about in the long run.
    """

    def update(updates: Any, params: Any) -> Any:
        def one(change: jax.Array, leaf: jax.Array, chosen: bool) -> jax.Array:
            if not chosen:
                return change
            return change + (jnp.sqrt(leaf.shape[-1]) / jnp.linalg.norm(leaf) - 1) * leaf

        return jax.tree.map(one, updates, params, _chosen(params, config))

    return optax.stateless(update)


def _chosen(params: Any, config: OptimConfig) -> Any:
    """Returns which parameters are matrices to muon: the tree of `params` with a bool for each."""
    return jax.tree.map(
        lambda _, taken: taken is not None, params, matrices(params, config.muon), is_leaf=lambda leaf: leaf is None
    )
