"""What holds for every named model.

Residual networks run op by op: those of one family share their small programs, and most of the time goes into
compiling. Each layer of a DenseNet has a shape of its own, so that one program a network is the faster way.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY, image_size, leaves, variables

from convjax.models import MODELS, create

SLOW = {name for name in MODELS if name.startswith("densenet")} | {"resnet101", "resnet152"}
CASES = [pytest.param(name, {}, marks=[pytest.mark.slow] if name in SLOW else [], id=name) for name in MODELS]
SHALLOW = [
    pytest.param("densenet121", {"block_sizes": (2, 2, 2, 2)}, id="shallow densenet"),
    pytest.param("densenet_bc_100_12", {"block_sizes": (2, 2, 2)}, id="shallow densenet_bc"),
]


@pytest.mark.parametrize(("name", "fields"), CASES + SHALLOW)
def test_every_parameter_has_a_gradient_and_statistics_move_in_training_only(name: str, fields: dict[str, Any]) -> None:
    compiled: Any = jax.jit if name.startswith("densenet") else lambda function: function
    model = create(name, num_classes=10, **fields)
    images = jax.random.normal(KEY, (4, *image_size(name)))
    labels = jnp.arange(4)
    initial = compiled(lambda: model.init(KEY, images, train=True))()
    stats = {"batch_stats": initial["batch_stats"]} if "batch_stats" in initial else {}

    def loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updated = model.apply({"params": params, **stats}, images, train=True, mutable=["batch_stats"])
        return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels]), (logits, updated)

    gradient, (logits, updated) = compiled(jax.grad(loss, has_aux=True))(initial["params"])
    assert logits.shape == (4, 10)
    assert logits.dtype == jnp.float32
    assert jnp.isfinite(logits).all()
    largest = {path: float(np.abs(leaf).max()) for path, leaf in leaves(gradient).items()}
    assert [path for path, g in largest.items() if not 0 < g < np.inf] == []

    before, after = leaves(stats), leaves({k: updated[k] for k in stats})
    assert before.keys() == after.keys()
    assert [path for path, old in before.items() if np.array_equal(old, after[path])] == []
    evaluate = compiled(lambda variables: model.apply(variables, images, train=False, mutable=["batch_stats"]))
    logits, evaluated = evaluate(initial)
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
