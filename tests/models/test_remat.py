"""What a backward pass keeps, with and without `model.remat`."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from small_models import KEY

from convjax.models import CifarResNet, ConvNeXt, DenseNet, EfficientNet, MobileNetV2, ResNet, ResNetV2
from convjax.models.base import BlockModel

MODELS = [
    CifarResNet(depth=20),
    ResNet(stage_sizes=(2, 2), stem="cifar"),
    ResNetV2(stage_sizes=(2, 2), stem="cifar"),
    DenseNet(block_sizes=(4, 4), stem="cifar"),
    MobileNetV2(),
    EfficientNet(),
    ConvNeXt(stage_sizes=(2, 2), width=16),
]


def kept(model: BlockModel) -> int:
    """Returns the bytes that the forward pass leaves for the backward pass, but for the parameters."""
    images = jnp.zeros((8, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init({"params": KEY, "dropout": KEY}, images, train=True))
    stats = {name: value for name, value in variables.items() if name == "batch_stats"}

    def residuals(params: Any, stats: Any) -> Any:
        def loss(params: Any) -> Any:
            rngs = {"dropout": jax.random.key(1)}
            logits, _ = model.apply({"params": params, **stats}, images, train=True, rngs=rngs, mutable=["batch_stats"])
            return jnp.sum(jnp.asarray(logits))

        return jax.vjp(loss, params)[1]

    leaves = jax.tree.leaves(jax.eval_shape(residuals, variables["params"], stats))
    whole = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.number))
    return whole - sum(leaf.size * 4 for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_blocks_keep_their_input_alone(model: BlockModel) -> None:
    assert kept(model.clone(remat=True)) < kept(model) / 2


@pytest.mark.parametrize(
    "model",
    [
        CifarResNet(depth=8, width=8),
        DenseNet(block_sizes=(2, 1), growth=4, stem_features=8, stem="cifar"),  # whose layers share statistics
    ],
    ids=lambda model: type(model).__name__,
)
def test_numbers_and_names_do_not_depend_on_it(model: BlockModel) -> None:
    images = jax.random.normal(KEY, (4, 16, 16, 3))
    variables = model.init(KEY, images, train=False)
    again = model.clone(remat=True).init(KEY, images, train=False)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, again)

    def gradient(model: BlockModel) -> Any:
        def loss(params: Any) -> Any:
            logits, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.asarray(logits)[:, 0])

        return jax.jit(jax.grad(loss))(variables["params"])

    for a, b in zip(jax.tree.leaves(gradient(model)), jax.tree.leaves(gradient(model.clone(remat=True))), strict=True):
        assert jnp.max(jnp.abs(a - b)) <= 1e-5 * jnp.max(jnp.abs(a))
