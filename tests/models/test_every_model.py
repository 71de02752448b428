"""What holds for every named model; run op by op, since networks of one family share their small programs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY, image_size, leaves, variables

from convjax.models import MODELS, create

DEEP = ("resnet101", "resnet152", "densenet121", "densenet161", "densenet169", "densenet201")
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in MODELS]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_gradient_and_statistics_move_in_training_only(name: str) -> None:
    model = create(name, num_classes=10)
    images = jax.random.normal(KEY, (4, *image_size(name)))
    labels = jnp.arange(4)
    initial = model.init(KEY, images, train=True)
    stats = {"batch_stats": initial["batch_stats"]} if "batch_stats" in initial else {}

    def loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updated = model.apply({"params": params, **stats}, images, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels]), (logits, updated)

    gradient, (logits, updated) = jax.grad(loss, has_aux=True)(initial["params"])
    assert logits.shape == (4, 10)
    assert logits.dtype == jnp.float32
    assert jnp.isfinite(logits).all()
    largest = {path: float(np.abs(leaf).max()) for path, leaf in leaves(gradient).items()}
    assert [path for path, g in largest.items() if not 0 < g < np.inf] == []

    before, after = leaves(stats), leaves({k: updated[k] for k in stats})
    assert before.keys() == after.keys()
    assert [path for path, old in before.items() if np.array_equal(old, after[path])] == []
    logits, evaluated = model.apply(initial, images, train=False, mutable=["batch_stats"])
    assert jnp.isfinite(logits).all()
    for path, leaf in leaves({k: evaluated[k] for k in stats}).items():
        np.testing.assert_array_equal(leaf, before[path])


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_changes_neither_parameters_nor_the_dtype_of_logits(name: str) -> None:
    image = image_size(name)
    half = create(name, dtype="bfloat16")
    trees = [leaves(variables(model, *image)) for model in (create(name), half)]
    assert trees[0] == trees[1]
    assert {leaf.dtype for leaf in trees[1].values()} == {np.dtype("float32")}
    batch = jax.ShapeDtypeStruct((4, *image), jnp.float32)
    logits = jax.eval_shape(lambda v, x: half.apply(v, x, train=False), variables(half, *image), batch)
    assert (logits.shape, logits.dtype) == ((4, half.num_classes), jnp.float32)
