"""The layers against PyTorch in float64, so that only convjax rounds to float32."""

import importlib
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.layers import ACTIVATIONS, Layers, SqueezeExcite
from convjax.norms import NormName, norm_factory

pytestmark = pytest.mark.parity

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

SHAPE = (4, 5, 3, 24)
ROUNDING = 1e-5
"""Values of order one that some ten operations rounded, with a variance over at most 60 values among them."""


@pytest.fixture(scope="module")
def torch() -> Any:
    return importlib.import_module("torch")


def normal(seed: int, shape: tuple[int, ...] = SHAPE) -> Array:
    # Neither centred nor of unit variance: a norm that forgets the mean or the variance shows.
    return 3 + 2 * np.random.default_rng(seed).standard_normal(shape, np.float32)


def double(torch: Any, x: Array) -> Any:
    """Images NHWC as PyTorch's NCHW; vectors as they are."""
    tensor = torch.from_numpy(x).double()
    return tensor.permute(0, 3, 1, 2) if x.ndim == 4 else tensor


def norm_module(name: NormName, *, train: bool) -> nn.Module:
    module = norm_factory(name, train=train, dtype=jnp.float32)()
    assert isinstance(module, nn.Module)
    return module


def affine(seed: int) -> tuple[Array, Array]:
    return normal(seed, SHAPE[-1:]), normal(seed + 1, SHAPE[-1:])


def assert_equal(ours: Any, theirs: Any) -> None:
    desired = theirs.detach().numpy()
    desired = desired.transpose(0, 2, 3, 1) if desired.ndim == 4 else desired
    np.testing.assert_allclose(ours, desired, rtol=ROUNDING, atol=ROUNDING)


def test_batch_norm_is_pytorchs_in_training_and_in_evaluation(torch: Any) -> None:
    scale, bias = affine(1)
    theirs = torch.nn.BatchNorm2d(SHAPE[-1]).double()
    theirs.load_state_dict({"weight": double(torch, scale), "bias": double(torch, bias)}, strict=False)
    params = {"scale": scale, "bias": bias}
    stats: Any = {"mean": jnp.zeros(SHAPE[-1]), "var": jnp.ones(SHAPE[-1])}
    training, evaluation = (norm_module("batch", train=train) for train in (True, False))

    for seed in range(3):
        x = normal(seed)
        y, updated = training.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        stats = updated["batch_stats"]
        assert_equal(y, theirs(double(torch, x)))
    assert_equal(stats["mean"], theirs.running_mean)
    # The running variance starts at 1, which decays by 0.9 a step in both; what is added to it is biased
    # here and unbiased there.
    n = SHAPE[0] * SHAPE[1] * SHAPE[2]
    assert_equal((stats["var"] - 0.9**3) * (n / (n - 1)), theirs.running_var - 0.9**3)

    theirs.eval()
    theirs.running_var.copy_(torch.from_numpy(np.array(stats["var"])))
    x = normal(7)
    assert_equal(evaluation.apply({"params": params, "batch_stats": stats}, x), theirs(double(torch, x)))


def test_batch_norm_hands_back_pytorchs_gradients(torch: Any) -> None:
    scale, bias = affine(1)
    x, dy = normal(3), normal(4)
    tensors = [torch.from_numpy(a).double().requires_grad_() for a in (x, scale, bias)]
    y = torch.nn.functional.batch_norm(tensors[0].permute(0, 3, 1, 2), None, None, *tensors[1:], training=True)
    y.backward(double(torch, dy))
    module = norm_module("batch", train=True)
    stats = {"mean": jnp.zeros(SHAPE[-1]), "var": jnp.ones(SHAPE[-1])}

    def loss(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
        return jnp.sum(dy * module.apply(variables, x, mutable=["batch_stats"])[0])

    for ours, theirs in zip(jax.grad(loss, (0, 1, 2))(x, scale, bias), tensors, strict=True):
        # Sums of 60 terms up to about 30: 60 roundings of 2^-24 * 1000 at the worst.
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=ROUNDING, atol=2e-4)


@pytest.mark.parametrize("channels", [24, 12, 5])
def test_group_norm_is_pytorchs_with_as_many_groups(torch: Any, channels: int) -> None:
    x, scale, bias = normal(1, (2, 4, 3, channels)), normal(2, (channels,)), normal(3, (channels,))
    ours = norm_module("group", train=True).apply({"params": {"group": {"scale": scale, "bias": bias}}}, x)
    groups = {24: 3, 12: 3, 5: 5}[channels]  # of gcd(channels, 8) = 8, 4 and 1 channels
    tensors = (double(torch, a) for a in (scale, bias))
    assert_equal(ours, torch.nn.functional.group_norm(double(torch, x), groups, *tensors))


def test_layer_norm_is_pytorchs_over_the_channels(torch: Any) -> None:
    x, (scale, bias) = normal(1), affine(2)
    ours: Any = norm_module("layer", train=True).apply({"params": {"scale": scale, "bias": bias}}, x)
    tensors = [torch.from_numpy(a).double() for a in (x, scale, bias)]
    theirs = torch.nn.functional.layer_norm(tensors[0], SHAPE[-1:], *tensors[1:], eps=1e-6)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", ["relu", "relu6", "gelu", "silu", "hard_swish", "tanh"])
def test_activations_are_pytorchs(torch: Any, name: str) -> None:
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    # PyTorch's gelu is the exact one unless told otherwise; the tanh approximation is off by up to 5e-4.
    theirs = getattr(torch if name == "tanh" else torch.nn.functional, name.replace("_", ""))(
        torch.from_numpy(x).double()
    )
    ours = {str(key): function for key, function in ACTIVATIONS.items()}[name](jnp.asarray(x))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-6)


def test_squeeze_excite_is_the_papers_equations_in_pytorch(torch: Any) -> None:
    layers = Layers.build(norm="batch", activation="relu", dtype="float32", train=True)
    rng = np.random.default_rng(5)
    squeeze, excite = rng.standard_normal((24, 6), np.float32), rng.standard_normal((6, 24), np.float32)
    b1, b2 = rng.standard_normal(6, np.float32), rng.standard_normal(24, np.float32)
    params = {
        "squeeze": {"kernel": squeeze[None, None], "bias": b1},
        "excite": {"kernel": excite[None, None], "bias": b2},
    }
    x = normal(6)
    ours: Any = SqueezeExcite(layers, reduction=4).apply({"params": params}, x)
    image, w1, v1, w2, v2 = (torch.from_numpy(a).double() for a in (x, squeeze, b1, excite, b2))
    gate = torch.sigmoid(torch.relu(image.mean((1, 2)) @ w1 + v1) @ w2 + v2)
    np.testing.assert_allclose(ours, (image * gate[:, None, None]).numpy(), rtol=ROUNDING, atol=ROUNDING)
