"""Stock Linen and optax, in the plain style of Flax's examples."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

from peers import batch, jax_side
from peers.cases import NETWORKS, Case
from peers.linen_networks import network
from peers.side import Prepared


class TrainState(train_state.TrainState):
    batch_stats: Any


@jax.jit
def train_step(state: TrainState, images: jax.Array, labels: jax.Array) -> tuple[TrainState, jax.Array]:
    def loss_fn(params: Any) -> tuple[jax.Array, Any]:
        logits, changed = state.apply_fn(
            {"params": params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.fold_in(jax.random.key(0), state.step)},
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        return loss, changed

    (loss, changed), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    new = state.apply_gradients(grads=grads, batch_stats=changed.get("batch_stats", {}))  # type: ignore[no-untyped-call]
    return new, loss


@jax.jit
def predict(state: TrainState, images: jax.Array) -> jax.Array:
    return state.apply_fn({"params": state.params, "batch_stats": state.batch_stats}, images, train=False)


def create_state(model: Any, image: tuple[int, int, int], rate: float) -> TrainState:
    """Returns the state before the first step."""
    variables = jax.jit(lambda key: model.init(key, jnp.zeros((1, *image)), train=False))(jax.random.key(0))
    return TrainState.create(  # type: ignore[no-untyped-call]
        apply_fn=model.apply,
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        tx=optax.sgd(rate, momentum=0.9),
    )


@contextlib.contextmanager
def prepared(case: Case, mode: str) -> Iterator[Prepared]:
    """Prepares a case; there is one mode."""
    del mode
    described = NETWORKS[case.network]
    model = network(described.name, described.classes, jnp.dtype(case.precision))
    state = create_state(model, described.image, 0.01)
    images, labels = (jnp.asarray(x) for x in batch.normalised(case))

    def advance() -> Any:
        nonlocal state
        state, loss = train_step(state, images, labels)
        return loss, state

    def ask() -> Any:
        return predict(state, images)

    yield jax_side.prepared(case, advance, ask, state.params)
