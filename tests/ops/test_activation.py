"""Rectifiers against those of jax.nn, whose derivatives are defined by the argument."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax import ops

PAIRS = [(ops.relu, jax.nn.relu), (ops.relu6, jax.nn.relu6)]
EDGES = jnp.asarray([-jnp.inf, -1, -0.0, 0, 1e-40, 0.5, 5.99, 6, 6.01, jnp.inf, jnp.nan])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("ours", "stock"), PAIRS)
def test_values_and_slopes_are_those_of_jax_also_at_the_edges(
    ours: Callable[[jax.Array], jax.Array], stock: Callable[[jax.Array], jax.Array], dtype: str
) -> None:
    x = jnp.concatenate([EDGES, jnp.linspace(-7, 7, 97)]).astype(dtype)
    seen: list[Callable[[Callable[[jax.Array], jax.Array]], jax.Array]] = [
        lambda f: f(x),
        lambda f: jax.vmap(jax.grad(f))(x),
        lambda f: jax.jvp(f, (x,), (x + 2,))[1],
        lambda f: jax.vmap(jax.grad(jax.grad(f)))(x),
    ]
    for found in seen:
        np.testing.assert_array_equal(found(ours).astype(jnp.float32), found(stock).astype(jnp.float32))


@pytest.mark.parametrize("ours", [ours for ours, _ in PAIRS])
def test_a_gradient_asks_the_result_and_not_the_argument(ours: Callable[[jax.Array], jax.Array]) -> None:
    jaxpr = jax.make_jaxpr(jax.grad(lambda x: (ours(x) ** 2).sum()))(jnp.ones((7, 11)))
    (x,) = jaxpr.jaxpr.invars
    users = [equation.primitive.name for equation in jaxpr.eqns if x in equation.invars]
    assert len(users) == 1, users  # the rectifier itself
