"""Twenty steps in float32, bfloat16 and float16: nothing that is not finite, and losses near float32's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_models import image_size

from convjax.data.loader import Batch
from convjax.data.splits import Normalise
from convjax.models import MODELS, create
from convjax.train import state as states
from convjax.train.step import Step

FAST = ("mlp", "lenet5", "resnet20")
CASES = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in MODELS]


def losses(name: str, dtype: str) -> list[float]:
    """Returns the losses of twenty steps on one batch."""
    model = create(name, num_classes=10, dtype=dtype)
    rate = optax.constant_schedule(1e-3)
    step = Step(model, optax.sgd(rate, momentum=0.9), rate, Normalise((0.5,), (0.25,)))
    image = image_size(name)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (16, *image)).astype(np.uint8), rng.integers(0, 10, 16).astype(np.int32)
    batch = Batch(jnp.asarray(images), jnp.asarray(labels), jnp.arange(16))
    state = states.init(model, step.optimizer, image, 0)
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {jnp.dtype("float32")}
    train: Any = jax.jit(step.train)
    found = []
    for _ in range(20):
        state, metrics = train(state, batch)
        assert not metrics["broken"]
        found.append(float(metrics["loss"]))
    assert int(state.skipped) == 0
    if dtype == "float16":
        # A first scale that was too large has been halved, at most a few times.
        assert int(state.loss_scale.overflows) <= 8
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((state.params, state.batch_stats)))
    assert {leaf.dtype for leaf in jax.tree.leaves((state.params, state.batch_stats))} == {jnp.dtype("float32")}
    return found


@pytest.mark.parametrize("name", CASES)
def test_twenty_steps_in_each_precision(name: str) -> None:
    whole = losses(name, "float32")
    for dtype, bound in (("bfloat16", 0.1), ("float16", 0.1)):
        half = losses(name, dtype)
        assert np.isfinite(half).all()
        # The first loss is that of the same weights: 8 bits of mantissa, through all layers.
        assert half[0] == pytest.approx(whole[0], rel=0.05)
        assert np.mean(half[-5:]) == pytest.approx(np.mean(whole[-5:]), rel=bound, abs=0.1)
