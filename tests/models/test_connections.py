"""What residual and dense connections are: paths that pass the input and its gradient on as they are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.models import CifarResNet
from convjax.models.densenet import DenseLayer
from convjax.models.resnet import BasicBlock

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


def test_a_dense_layer_passes_its_input_on_and_adds_growth_channels() -> None:
    layer = DenseLayer(LAYERS, growth=3, bottleneck=True, dropout=0, train=False)
    y, _ = layer.init_with_output(KEY, X)
    assert y.shape == (2, 5, 5, 7)
    np.testing.assert_array_equal(y[..., :4], X)
    assert float(jnp.abs(y[..., 4:]).max()) > 0
