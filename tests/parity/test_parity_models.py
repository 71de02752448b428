"""Networks that no library has, written down in PyTorch: same weights, same logits and gradients."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import leaves

from convjax.models import MODELS

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def torch() -> Any:
    return importlib.import_module("torch")


def lenet5(torch: Any, p: dict[str, Any], x: Any) -> Any:
    """LeCun et al. 1998, figure 2; C5 is a linear layer on the flattened 5 x 5 pixels of S4."""
    f = torch.nn.functional
    for c in ("1", "3"):
        x = f.conv2d(x, p[f"params/c{c}/kernel"].permute(3, 2, 0, 1), p[f"params/norm{c}/bias"])
        x = f.avg_pool2d(torch.tanh(x), 2)
    x = x.permute(0, 2, 3, 1).flatten(1)  # our order: channels fastest
    for name in ("c5", "f6"):
        x = torch.tanh(x @ p[f"params/{name}/kernel"] + p[f"params/{name}/bias"])
    return x @ p["params/output/kernel"] + p["params/output/bias"]


def mlp(torch: Any, p: dict[str, Any], x: Any) -> Any:
    """Two hidden layers, each with a batch norm before its rectifier; in training mode."""
    x = x.permute(0, 2, 3, 1).flatten(1)
    for i in (1, 2):
        x = x @ p[f"params/dense{i}/kernel"]
        scale, bias = p[f"params/norm{i}/scale"], p[f"params/norm{i}/bias"]
        x = torch.relu(torch.nn.functional.batch_norm(x, None, None, scale, bias, training=True))
    return x @ p["params/head/kernel"] + p["params/head/bias"]


@pytest.mark.parametrize(("name", "there"), [("lenet5", lenet5), ("mlp", mlp)])
def test_logits_and_gradients_are_those_of_pytorch(torch: Any, name: str, there: Callable[..., Any]) -> None:
    entry = MODELS[name]
    rng = np.random.default_rng(0)
    images = rng.standard_normal((8, *entry.image), np.float32)
    shapes: Any = jax.eval_shape(lambda: entry.module.init(jax.random.key(0), images, train=False))
    variables = jax.tree.map(lambda leaf: np.float32(0.1) * rng.standard_normal(leaf.shape, np.float32), shapes)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        logits: Any = entry.module.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"])[
            0
        ]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(8), jnp.arange(8)]), logits

    (value, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    tensors = {
        path: torch.from_numpy(leaf).double().requires_grad_()
        for path, leaf in leaves({"params": variables["params"]}).items()
    }
    expected = there(torch, tensors, torch.from_numpy(images).double().permute(0, 3, 1, 2))
    expected_loss = torch.nn.functional.cross_entropy(expected, torch.arange(8))
    expected_loss.backward()
    logits_there = expected.detach().numpy()
    np.testing.assert_allclose(logits, logits_there, rtol=0, atol=1e-5 * np.abs(logits_there).max())
    np.testing.assert_allclose(value, expected_loss.item(), rtol=1e-6)
    found = leaves({"params": gradient})
    assert found.keys() == tensors.keys()
    for path, tensor in tensors.items():
        theirs = tensor.grad.numpy()
        np.testing.assert_allclose(found[path], theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=path)
