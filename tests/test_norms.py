"""Batch normalization against the paper's equations (Ioffe and Szegedy 2015, arXiv:1502.03167)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.norms import norm_factory

_EPSILON = 1e-5
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(3, 2, (4, 5, 5, 3))
DY = _RANDOM.normal(size=X.shape)
SCALE, BIAS = np.array([0.5, 1.0, -2.0]), np.array([1.0, 0.0, 3.0])
VARIABLES = {
    "params": {"scale": jnp.asarray(SCALE, jnp.float32), "bias": jnp.asarray(BIAS, jnp.float32)},
    "batch_stats": {"mean": jnp.zeros(3), "var": jnp.ones(3)},
}
AXES = (0, 1, 2)


def batch_norm(x: Any, variables: Any = VARIABLES, *, train: bool = True) -> tuple[Any, Any]:
    norm: Any = norm_factory("batch", train=train, dtype=jnp.float32)()
    y, changed = norm.apply(variables, jnp.asarray(x, jnp.float32), mutable=["batch_stats"])
    return y, {**variables, **changed}


def standardised() -> np.ndarray[Any, Any]:
    return (X - X.mean(AXES)) / np.sqrt(X.var(AXES) + _EPSILON)


def test_batch_norm_in_training_is_the_papers_algorithm_1() -> None:
    np.testing.assert_allclose(batch_norm(X)[0], SCALE * standardised() + BIAS, rtol=1e-5, atol=1e-5)


def test_batch_norm_hands_back_the_papers_gradient() -> None:
    y, backward = jax.vjp(lambda x, params: batch_norm(x, {**VARIABLES, "params": params})[0], X, VARIABLES["params"])
    dx, dparams = backward(jnp.asarray(DY, y.dtype))
    # What is common to the whole batch is taken out of the gradient, and so is its share along the output.
    left = DY - DY.mean(AXES) - standardised() * (DY * standardised()).mean(AXES)
    np.testing.assert_allclose(dx, SCALE / np.sqrt(X.var(AXES) + _EPSILON) * left, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dparams["scale"], (DY * standardised()).sum(AXES), rtol=1e-4)
    np.testing.assert_allclose(dparams["bias"], DY.sum(AXES), rtol=1e-4)


def test_batch_norm_takes_numpys_arrays() -> None:
    norm: Any = norm_factory("batch", train=True, dtype=jnp.float32)()
    y, _ = norm.apply(VARIABLES, X.astype(np.float32), mutable=["batch_stats"])
    np.testing.assert_array_equal(y, batch_norm(X)[0])


def test_batch_norm_in_training_does_not_see_the_scale_of_its_input() -> None:
    np.testing.assert_allclose(batch_norm(8 * X + 5)[0], batch_norm(X)[0], rtol=1e-4, atol=1e-4)


def test_batch_norm_in_evaluation_takes_statistics_that_decay_by_0_9_a_step() -> None:
    variables: Any = VARIABLES
    for _ in range(5):
        _, variables = batch_norm(X, variables)
    left = 0.9**5
    mean, variance = (1 - left) * X.mean(AXES), left + (1 - left) * X.var(AXES)
    np.testing.assert_allclose(variables["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(variables["batch_stats"]["var"], variance, rtol=1e-5)
    y, after = batch_norm(X, variables, train=False)
    np.testing.assert_allclose(y, SCALE * (X - mean) / np.sqrt(variance + _EPSILON) + BIAS, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, variables)  # evaluation changes nothing
    # One image of the batch alone gives what it gives in the batch.
    np.testing.assert_allclose(batch_norm(X[:1], variables, train=False)[0], y[:1], rtol=1e-6, atol=1e-6)


def both(dtype: str, train: bool) -> tuple[Any, Any]:
    ours = norm_factory("batch", train=train, dtype=jnp.dtype(dtype))()
    theirs = nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=jnp.dtype(dtype), use_fast_variance=False
    )
    return ours, theirs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_is_linens_to_the_last_bit(dtype: str, train: bool) -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(1000 + 0.1 * rng.standard_normal((4, 5, 6, 3)), dtype)
    variables: Any = {
        "params": {"scale": jnp.array([1.0, -2.0, 0.5]), "bias": jnp.array([0.0, 1.0, 2.0])},
        "batch_stats": {"mean": jnp.array([999.0, 1000.0, 1001.0]), "var": jnp.array([1.0, 2.0, 3.0])},
    }
    found = [norm.apply(variables, x, mutable=["batch_stats"]) for norm in both(dtype, train)]
    jax.tree.map(np.testing.assert_array_equal, *found)
    jax.tree.map(np.testing.assert_array_equal, *(norm.init(jax.random.key(0), x) for norm in both(dtype, train)))


def test_derivatives_of_batch_norm_are_linens_to_the_second_order() -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, v, w = (jnp.asarray(a) for a in rng.standard_normal((3, 4, 3, 2, 2)))
        found = []
        for norm in both("float64", train=True):
            variables = jax.jit(norm.init)(jax.random.key(0), x)

            def loss(x: jax.Array, norm: Any = norm, variables: Any = variables) -> jax.Array:
                return jnp.sum(w * norm.apply(variables, x, mutable=["batch_stats"])[0] ** 3)

            found.append([jax.grad(loss)(x), jax.jvp(loss, (x,), (v,))[1], jax.jvp(jax.grad(loss), (x,), (v,))[1]])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def sums_over_pixels(norm: Any) -> int:
    """Counts the sums over all pixels that a batch norm in training and its gradient take."""
    x = jnp.ones((4, 5, 6, 3))
    variables = norm.init(jax.random.key(0), x)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        y, _ = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.vdot(y, y)

    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(variables["params"], x).compile()
    return str(compiled.as_text()).count(" reduce(")


def test_batch_norm_takes_two_sums_over_pixels_forwards_and_two_backwards() -> None:
    ours, theirs = both("float32", train=True)
    assert sums_over_pixels(ours) == 4
    assert sums_over_pixels(theirs) > 4
