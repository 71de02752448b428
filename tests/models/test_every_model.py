"""What holds for every named model.

Residual networks run op by op: those of one family share their small programs, and most of the time goes into
compiling. Each layer of a DenseNet has a shape of its own, so that one program a network is the faster way, as for
other families of many shapes. Of most families only a short or narrow member is not slow.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from certificates import REPLAYED
from small_models import KEY, image_size, leaves, variables

from convjax.models import MODELS, create

FAST = {"mlp", "lenet5", "airbench94", "resnetv2_20", "resnet18"} | {
    f"{kind}{depth}" for kind in ("resnet", "plain") for depth in (20, 110)
}
SHORT: dict[str, dict[str, Any]] = {
    "densenet121": {"block_sizes": (2, 2, 2, 2)},
    "densenet_bc_100_12": {"block_sizes": (2, 2, 2)},
    "alexnet": {"hidden": (64, 64)},
    "vgg11": {"hidden": (64,)},
    "vgg11_bn": {"hidden": (64,)},
    "googlenet": {},
    "resnet50": {"stage_sizes": (1, 1, 1, 1)},
    "resnext50_32x4d": {"stage_sizes": (1, 1, 1, 1)},
    "wide_resnet50_2": {"stage_sizes": (1, 1, 1, 1)},
    "wide_resnet16_8": {"width": 32},
    "seresnet18": {"stage_sizes": (1, 1, 1, 1)},
    "resnetv2_50": {"stage_sizes": (1, 1, 1, 1)},
    "resnetv2_164": {"stage_sizes": (1, 1, 1)},
    "mobilenet_v2": {"width_factor": 0.5},
    "mobilenet_v3_small": {},
    "efficientnet_b0": {"width_factor": 0.5, "drop_path": 0.0},
    "efficientnet_lite0": {"width_factor": 0.5, "drop_path": 0.0},
    "convnext_tiny": {"stage_sizes": (1, 1), "width": 16},
}
SLOW = [pytest.mark.slow]
# All gradients and statistics of a network whose certificate is replayed are compared with another library's.
CASES = [pytest.param(name, {}, marks=[] if name in FAST - REPLAYED else SLOW, id=name) for name in MODELS]
SHORT_CASES = [
    pytest.param(name, fields, marks=SLOW if name in REPLAYED else [], id=f"short {name}")
    for name, fields in SHORT.items()
]
JITTED = ("densenet", "mobilenet", "efficientnet", "googlenet", "convnext", "resnext", "seresnet")


def without_gradient(name: str, path: str) -> bool:
    """Whether a parameter has no gradient by design."""
    if name == "airbench94":  # the whitening is computed, not trained
        return path == "whiten/kernel"
    # A norm takes away what the convolution's bias adds: what is left of its gradient is rounding.
    return name.startswith("vgg") and name.endswith("_bn") and "_conv" in path and path.endswith("bias")


@pytest.mark.parametrize(("name", "fields"), CASES + SHORT_CASES)
def test_every_parameter_has_a_gradient_and_statistics_move_in_training_only(name: str, fields: dict[str, Any]) -> None:
    # Compiling takes most of the time, and half of that goes into a speed that one step has no use for.
    fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    compiled: Any = fast if name.startswith(JITTED) else lambda function: function
    model = create(name, num_classes=10, **fields)
    images = jax.random.normal(KEY, (4, *image_size(name)))
    labels = jnp.arange(4)
    initial = compiled(lambda: model.init(KEY, images, train=True))()
    stats = {"batch_stats": initial["batch_stats"]} if "batch_stats" in initial else {}

    def loss(params: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        logits, updated = model.apply(
            {"params": params, **stats}, images, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )
        return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels]), (logits, updated)

    gradient, (logits, updated) = compiled(jax.grad(loss, has_aux=True))(initial["params"])
    assert logits.shape == (4, 10)
    assert logits.dtype == jnp.float32
    assert jnp.isfinite(logits).all()
    largest = {path: float(np.abs(leaf).max()) for path, leaf in leaves(gradient).items()}
    assert all(np.isfinite(g) for g in largest.values())
    assert [path for path, g in largest.items() if not (g > 0 or without_gradient(name, path))] == []

    before, after = leaves(stats), leaves({k: updated[k] for k in stats})
    assert before.keys() == after.keys()
    assert [path for path, old in before.items() if np.array_equal(old, after[path])] == []
    evaluate = compiled(lambda variables: model.apply(variables, images, train=False, mutable=["batch_stats"]))
    logits, evaluated = evaluate(initial)
    assert jnp.isfinite(logits).all()
    for path, leaf in leaves({k: evaluated[k] for k in stats}).items():
        np.testing.assert_array_equal(leaf, before[path])


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST | SHORT.keys() else SLOW) for n in MODELS])
def test_bfloat16_changes_neither_parameters_nor_the_dtype_of_logits(name: str) -> None:
    image = image_size(name)
    half = create(name, dtype="bfloat16")
    trees = [leaves(variables(model, *image)) for model in (create(name), half)]
    assert trees[0] == trees[1]
    assert {leaf.dtype for leaf in trees[1].values()} == {np.dtype("float32")}
    batch = jax.ShapeDtypeStruct((4, *image), jnp.float32)
    logits = jax.eval_shape(lambda v, x: half.apply(v, x, train=False), variables(half, *image), batch)
    assert (logits.shape, logits.dtype) == ((4, half.num_classes), jnp.float32)
