import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convjax.data.augment import Augment, HorizontalFlip, RandomCrop
from convjax.data.loader import Batch
from convjax.data.mixing import Targets
from convjax.data.splits import Normalise
from convjax.models import MLP, CifarResNet, Model
from convjax.train import state as states
from convjax.train.config import OptimConfig
from convjax.train.losses import Loss
from convjax.train.optim import optimizer
from convjax.train.schedule import schedule
from convjax.train.state import TrainState
from convjax.train.step import Step

RNG = np.random.default_rng(0)
BATCH = Batch(
    jnp.asarray(RNG.integers(0, 256, (16, 8, 8, 1)), jnp.uint8),
    jnp.asarray(RNG.integers(0, 10, 16), jnp.int32),
    jnp.arange(16, dtype=jnp.int32),
)


NONE = Augment()


def make(model: Model, augment: Augment = NONE, **fields: Any) -> tuple[Step, TrainState]:
    config = OptimConfig(schedule="constant", **fields)
    rate = schedule(config, steps=100, warmup=0)
    step = Step(model, optimizer(config, rate), rate, Normalise((0.5,), (0.25,)), augment, seed=3)
    return step, states.init(model, step.optimizer, (8, 8, 1), seed=3)


def test_cross_entropy_with_smoothing_by_hand() -> None:
    logits = jnp.array([[2.0, 0.0, -1.0]])
    logs = np.array([2.0, 0.0, -1.0]) - np.log(np.exp([2.0, 0.0, -1.0]).sum())
    truth = Targets.of(jnp.array([1]))
    np.testing.assert_allclose(Loss()(logits, truth), [-logs[1]], rtol=1e-6)
    target = np.array([0.3 / 3, 0.7 + 0.3 / 3, 0.3 / 3])
    np.testing.assert_allclose(Loss(smoothing=0.3)(logits, truth), [-(target * logs).sum()], rtol=1e-6)


def test_a_step_of_plain_sgd_moves_against_the_gradient_by_the_learning_rate() -> None:
    step, state = make(MLP(hidden=(8,), norm="none"), lr=0.1, momentum=0.0, weight_decay=0.0)
    images = (BATCH.images / 255.0 - 0.5) / 0.25

    def loss(params: Any) -> jax.Array:
        logits = step.model.apply({"params": params}, images, train=True)
        return optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), BATCH.labels).mean()

    value, grads = jax.value_and_grad(loss)(state.params)
    after, metrics = jax.jit(step.train)(state, BATCH)
    assert int(after.step) == 1
    # Jitted and eager float32 differ by rounding alone.
    assert float(metrics["loss"]) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["gradient_norm"]) == pytest.approx(float(optax.tree.norm(grads)), rel=1e-5)
    assert float(metrics["learning_rate"]) == pytest.approx(0.1)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), after.params, expected)


def test_training_reduces_the_loss_and_moves_batch_statistics() -> None:
    step, state = make(CifarResNet(depth=8, width=4), lr=0.05)
    advance = jax.jit(step.train)
    before, losses = state.batch_stats, []
    for _ in range(12):
        state, metrics = advance(state, BATCH)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.5 * losses[0]
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.batch_stats), strict=True))


def test_randomness_depends_on_seed_step_and_example_alone() -> None:
    step, state = make(MLP(hidden=(4,), norm="none"), Augment(RandomCrop(2), HorizontalFlip(0.5)), lr=0.1)
    loss = jax.jit(lambda state, batch: step.train(state, batch)[1]["loss"])
    first, again = loss(state, BATCH), loss(state, BATCH)
    assert first == again
    assert loss(state.replace(step=jnp.int32(1)), BATCH) != first
    order = np.arange(15, -1, -1)
    turned = Batch(BATCH.images[order], BATCH.labels[order], BATCH.ids[order])
    # The same examples in another order: the same augmented images, summed in another order.
    assert float(loss(state, turned)) == pytest.approx(float(first), rel=1e-6)
    renamed = BATCH._replace(ids=BATCH.ids + 100)
    assert float(loss(state, renamed)) != pytest.approx(float(first), rel=1e-4)


def test_dropout_draws_anew_each_step() -> None:
    step, state = make(MLP(hidden=(64,), norm="none", dropout=0.5), lr=0.1)
    loss = jax.jit(lambda state: step.train(state, BATCH)[1]["loss"])
    assert loss(state) == loss(state)
    assert loss(state.replace(step=jnp.int32(1))) != loss(state)


def test_bfloat16_trains_float32_parameters_to_a_similar_loss() -> None:
    losses = {}
    for dtype in ("float32", "bfloat16"):
        step, state = make(CifarResNet(depth=8, width=8, dtype=dtype), lr=0.02)
        advance = jax.jit(step.train)
        for _ in range(5):
            state, metrics = advance(state, BATCH)
        leaves = jax.tree.leaves((state.params, state.batch_stats, state.opt_state[1:]))
        assert {leaf.dtype for leaf in leaves} <= {jnp.dtype("float32"), jnp.dtype("int32")}
        losses[dtype] = float(metrics["loss"])
    assert losses["bfloat16"] != losses["float32"]
    # bfloat16 keeps 8 bits: a relative 2^-8 an operation, through some thirty operations and five steps.
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)


def test_evaluation_does_not_depend_on_the_company_in_a_batch() -> None:
    step, state = make(CifarResNet(depth=8, width=4))
    whole = step.evaluate(state, BATCH)
    part = step.evaluate(state, jax.tree.map(lambda column: column[5:9], BATCH))
    np.testing.assert_allclose(whole.loss[5:9], part.loss, rtol=1e-5)
    assert (whole.prediction[5:9] == part.prediction).all()


class TwoHeads(nn.Module):
    """Its auxiliary logits are its logits, from a kernel of their own."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = images.reshape(images.shape[0], -1)
        main, auxiliary = (nn.Dense(10, name=name)(x) for name in ("main", "auxiliary"))
        if train and not self.is_initializing():
            self.sow("auxiliary_logits", "from_the_middle", auxiliary)
        return main


@pytest.mark.parametrize("groups", [1, 2])
def test_auxiliary_logits_take_part_in_the_loss_with_weight_0_3(groups: int) -> None:
    step, state = make(TwoHeads())  # type: ignore[arg-type]
    step = dataclasses.replace(step, groups=groups)
    images = step.normalise(BATCH.images)

    def expected(params: Any) -> jax.Array:
        logits = [images.reshape(16, -1) @ params[n]["kernel"] + params[n]["bias"] for n in ("main", "auxiliary")]
        main, auxiliary = (optax.softmax_cross_entropy_with_integer_labels(x, BATCH.labels).mean() for x in logits)
        return main + 0.3 * auxiliary

    (loss, (logits, _)), grads = jax.value_and_grad(step.loss, has_aux=True)(state.params, state, BATCH.images, BATCH)
    value, gradient = jax.value_and_grad(expected)(state.params)
    assert logits.shape == (16, 10)
    assert float(loss) == pytest.approx(float(value), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, gradient)
