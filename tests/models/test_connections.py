"""What residual and dense connections are: paths that pass the input and its gradient on as they are."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.models import CifarResNet, DenseNet
from convjax.models.densenet import DenseLayer
from convjax.models.resnet import BasicBlock
from convjax.ops import channels

KEY = jax.random.key(0)
X = 0.5 + jax.random.uniform(KEY, (2, 5, 5, 4))  # positive: the activation after the sum passes it on
LAYERS = CifarResNet().layers(train=False)


@pytest.mark.parametrize(("shortcut", "passed"), [("A", 1.0), ("none", 0.0)])
def test_the_gradient_passes_a_residual_block_beside_its_branch(shortcut: Any, passed: float) -> None:
    # With a branch that starts at zero nothing else passes: all of the gradient, or without the shortcut none.
    block = BasicBlock(LAYERS, 4, 1, shortcut, zero_init=True, drop_path=0, train=False)
    variables = block.init(KEY, X)
    y, backward = jax.vjp(lambda x: block.apply(variables, x), X)
    np.testing.assert_array_equal(y, passed * X)
    np.testing.assert_array_equal(backward(jnp.ones_like(X))[0], passed * jnp.ones_like(X))


def test_a_residual_block_is_its_input_and_its_branch() -> None:
    residual, plain = (
        BasicBlock(LAYERS, 4, 1, shortcut, zero_init=False, drop_path=0, train=False) for shortcut in ("A", "none")
    )
    variables = plain.init(KEY, X)
    branch: Any = plain.apply(variables, X)
    y: Any = residual.apply(variables, X)
    # Where the branch is positive, so that its own activation does not hide it, the sum is what it says.
    np.testing.assert_allclose(y[branch > 0], (X + branch)[branch > 0], rtol=1e-6)
    assert (branch > 0).any()


def test_a_dense_block_passes_its_input_on_and_each_layer_adds_growth_channels() -> None:
    net = DenseNet(num_classes=10, block_sizes=(2,), growth=3, stem_features=4, stem="cifar")
    outputs, seen = dict[str, Any](), list[Any]()

    def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        y = outputs["/".join(context.module.path)] = call(*args, **kwargs)
        if isinstance(context.module, DenseLayer) or context.module.path == ("norm",):
            seen.append(args[0])
        return y

    with nn.intercept_methods(note):
        net.init_with_output(KEY, jax.random.normal(KEY, (2, 5, 5, 3)), train=False)
    first, second, last = seen
    np.testing.assert_array_equal(first, outputs["stem"])
    np.testing.assert_array_equal(second, jnp.concatenate([outputs["stem"], outputs["block1_layer1"]], -1))
    np.testing.assert_array_equal(last, jnp.concatenate([second, outputs["block1_layer2"]], -1))
    assert last.shape == (2, 5, 5, 4 + 2 * 3)


def test_a_dense_block_takes_each_channels_statistics_once() -> None:
    net = DenseNet(num_classes=10, block_sizes=(2, 3), growth=8, stem_features=16, stem="cifar")
    images = jax.random.normal(KEY, (4, 16, 16, 3))
    variables: Any = jax.jit(lambda: net.init(KEY, images, train=False))()

    def loss(params: Any) -> tuple[jax.Array, Any]:
        logits, changed = net.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])
        return jnp.sin(logits).sum(), changed

    def every_norm_its_own(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        return call(*args, **{name: value for name, value in kwargs.items() if name != "moments"})

    def widths(params: Any) -> list[int]:
        return [
            e.invars[0].aval.shape[-1] for e in jax.make_jaxpr(loss)(params).eqns if e.primitive is channels.moments_p
        ]

    def traced_anew() -> Any:
        return jax.jit(lambda params: jax.value_and_grad(loss, has_aux=True)(params))(variables["params"])

    shared = traced_anew()
    # Stem, layers and transition, and four times the growth between the convolutions of each layer.
    assert sum(widths(variables["params"])) == (16 + 2 * 8) + (16 + 3 * 8) + 5 * 4 * 8
    with nn.intercept_methods(every_norm_its_own):
        alone = traced_anew()
    for ours, own in zip(jax.tree.leaves(shared), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, own, atol=2e-5 * float(jnp.abs(own).max()))
