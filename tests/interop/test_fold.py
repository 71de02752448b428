"""Folded networks have the logits of those they come from, for every family and any statistics."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY, leaves, one_of_each_family, small_image

from convjax.errors import UsageError
from convjax.inspect import count
from convjax.interop.fold import fold
from convjax.layers import Conv
from convjax.models import MODELS, CifarResNet, Model, ResNet, create

FAMILIES = list(one_of_each_family())
KEPT = {
    # First norm of each pre-activation block but the first, which follows the stem alone, and the norm before the
    # head: what they normalise is a sum ...
    "v2 basic": 1 + 1,
    "v2 bottleneck": 2 + 1,
    # ... or a concatenation, of which each layer, the transition and the head have one.
    "densenet": 4 + 1 + 1,
    "densenet without B": 4 + 1 + 1,
    # ... or a stem of convolution and pooling; the first norm of each of its two groups.
    "airbench": 2,
    # One before the halving of stage 2 and one before the head.
    "convnext": 2,
}
"""How many norms no convolution can take."""
fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def random_variables(model: Model, image: tuple[int, int, int]) -> Any:
    """Variables of which none is what `init` would make: means far from 0, variances far from 1, negative scales."""
    rng = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> Any:
        kind = path[-1].key
        if kind == "kernel":
            return np.float32(rng.standard_normal(leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5)
        if kind == "var":
            return rng.uniform(0.1, 4, leaf.shape).astype(np.float32)
        sign = rng.choice([-1, 1], leaf.shape) if kind == "scale" else 1
        return (sign * rng.uniform(0.3, 1.5, leaf.shape)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, count.shapes(model, image))


def evaluate(model: Model, variables: Any, images: Any) -> Any:
    return fast(lambda v, x: model.apply(v, x, train=False))(variables, images)


def test_every_named_networks_family_is_folded() -> None:
    assert {type(entry.module) for entry in MODELS.values()} <= {type(model) for model in one_of_each_family().values()}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_same(family: str) -> None:
    model, image = one_of_each_family(norm="batch")[family], small_image(family)
    variables = random_variables(model, image)
    folded, merged = fold(model, variables, image)
    images = np.random.default_rng(1).standard_normal((2, *image), np.float32)
    expected = evaluate(model, variables, images)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * np.abs(expected).max()  # the images matter
    found = evaluate(folded, merged, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_neither_roots_nor_statistics_are_left_and_few_scales(family: str) -> None:
    model, image = one_of_each_family(norm="batch")[family], small_image(family)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), count.shapes(model, image))
    folded, merged = fold(model, variables, image)
    assert merged.keys() == {"params"}
    images = jax.ShapeDtypeStruct((1, *image), jnp.float32)
    before, after = (
        [e.primitive.name for e, *_ in count.equations(jax.make_jaxpr(count.forward(m))(v, images).jaxpr)]
        for m, v in ((model, variables), (folded, merged))
    )
    norms = sum(path.endswith("/mean") and "auxiliary" not in path for path in leaves(variables))
    assert before.count("rsqrt") - after.count("rsqrt") == norms
    assert "sqrt" not in after
    made = leaves(count.shapes(folded, image))
    extra = [path for path in leaves(merged) if path not in made]
    assert len(extra) == KEPT.get(family, 0)
    assert all(path.endswith("/scale") for path in extra)
    # A norm subtracts, multiplies and adds; of a merged one only the sum is left.
    scales = sum(path.endswith("/scale") for path in leaves(merged))
    assert before.count("sub") - after.count("sub") == norms
    assert before.count("mul") - after.count("mul") >= norms - scales
    assert count.multiply_accumulates(folded, image) == count.multiply_accumulates(model, image)


def test_by_hand_one_convolution() -> None:
    class One(Model):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            layers = self.layers(train=train)
            return layers.norm(name="norm")(layers.conv(2, 1, name="conv")(images))

    params = {"conv": {"kernel": [[[[2.0, 3.0]]]]}, "norm": {"scale": [4.0, -2.0], "bias": [1.0, 5.0]}}
    statistics = {"norm": {"mean": [10.0, 20.0], "var": [4 - 1e-5, 16 - 1e-5]}}
    variables = jax.tree.map(
        np.float32, {"params": params, "batch_stats": statistics}, is_leaf=lambda x: isinstance(x, list)
    )
    folded, merged = fold(One(), variables, (4, 4, 1))
    assert folded.norm == "none"
    # Divided by deviations of 2 and 4: kernels 2 * 4/2 and 3 * -2/4, biases 1 - 10 * 4/2 and 5 - 20 * -2/4.
    np.testing.assert_allclose(merged["params"]["conv"]["kernel"], [[[[4.0, -1.5]]]], rtol=1e-6)
    np.testing.assert_allclose(merged["params"]["norm"]["bias"], [-19.0, 15.0], rtol=1e-6)
    assert list(merged["params"]["norm"]) == ["bias"]


@pytest.mark.parametrize("kind", ["read twice", "called twice"])
def test_a_convolution_that_others_read_too_is_left_alone(kind: str) -> None:
    class Shared(Model):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            layers = self.layers(train=train)
            conv = Conv(3, 3, name="conv")
            x = conv(images)
            y = layers.norm(name="norm")(x)
            y += x if kind == "read twice" else layers.norm(name="norm2")(conv(y))
            return y.mean((1, 2))

    model, image = Shared(), (8, 8, 3)
    variables = random_variables(model, image)
    folded, merged = fold(model, variables, image)
    images = np.random.default_rng(1).standard_normal((2, *image), np.float32)
    expected = evaluate(model, variables, images)
    np.testing.assert_allclose(evaluate(folded, merged, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_array_equal(merged["params"]["conv"]["kernel"], variables["params"]["conv"]["kernel"])


def test_recomputed_blocks_and_scales_that_start_at_zero_fold_too() -> None:
    plain = ResNet(stage_sizes=(1, 1), width=8, stem="cifar", zero_init=True)
    variables = random_variables(plain, (16, 16, 3))
    _, expected = fold(plain, variables, (16, 16, 3))
    folded, found = fold(plain.clone(remat=True), variables, (16, 16, 3))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert evaluate(folded, found, jax.random.normal(KEY, (1, 16, 16, 3))).shape == (1, 10)


def test_only_batch_norms_fold() -> None:
    model = CifarResNet(depth=8, norm="group")
    variables = {"params": random_variables(model, (8, 8, 3))}
    with pytest.raises(UsageError, match=r"model\.norm is 'group': only norms of kind 'batch' can be folded"):
        fold(model, variables, (8, 8, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MODELS if n.startswith(("resnet50", "efficientnet_b0", "densenet121"))])
def test_named_networks_fold(name: str) -> None:
    model, image = create(name), MODELS[name].image
    variables = random_variables(model, image)
    folded, merged = fold(model, variables, image)
    images = np.random.default_rng(1).standard_normal((2, *image), np.float32)
    expected = evaluate(model, variables, images)
    np.testing.assert_allclose(evaluate(folded, merged, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
