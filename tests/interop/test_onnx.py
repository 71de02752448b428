"""ONNX Runtime's logits are ours, for every family, for what users' own networks compute, and for any batch."""

import functools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from small_models import KEY, one_of_each_family, small_image
from test_fold import random_variables

import convjax
from convjax.data.images import Crop
from convjax.data.splits import Normalise
from convjax.errors import UsageError
from convjax.interop import export, onnx_file
from convjax.interop.onnx_file import to_onnx
from convjax.models import CifarResNet, ConvNeXt, Model
from convjax.train.weights import Weights

NORMALISE = Normalise((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
fast = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def weights(model: Any, image: tuple[int, int, int]) -> Weights:
    names = tuple(f"class {i}" for i in range(10))
    return Weights(model, image, names, NORMALISE, Crop(), {}, random_variables(model, image))


def images(image: tuple[int, int, int], batch: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (batch, *image)).astype(np.uint8)


def run(content: bytes, pixels: NDArray[np.uint8]) -> Any:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": pixels})
    return logits


def check(content: bytes, expected: Any, pixels: NDArray[np.uint8]) -> None:
    """Asserts that the file is valid, and gives the expected logits for one image and for several."""
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    scale = np.abs(expected).max()
    assert np.abs(expected - expected[:1]).max() > 1e-3 * scale  # the images matter
    for batch in (1, len(pixels)):
        np.testing.assert_allclose(run(content, pixels[:batch]), expected[:batch], rtol=0, atol=min(1e-4, 1e-5 * scale))


def operators(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


@pytest.mark.parametrize("family", list(one_of_each_family()))
def test_every_family_has_our_logits(family: str) -> None:
    image = small_image(family)
    network = weights(one_of_each_family()[family], image)
    pixels = images(image)
    content = export.as_onnx(network)
    check(content, fast(network.logits)(network.variables, pixels), pixels)
    # Batch norms are merged into convolutions: a root is left where means are taken of each image alone.
    assert operators(content)["Sqrt"] == (5 if family == "convnext" else 0)


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
def test_every_norm_has_our_logits(norm: Any) -> None:
    network, pixels = weights(CifarResNet(depth=8, width=8, norm=norm), (16, 16, 3)), images((16, 16, 3))
    check(export.as_onnx(network), fast(network.logits)(network.variables, pixels), pixels)


def test_convolutions_stay_in_onnx_s_layout() -> None:
    # One transposition of the images; the network itself needs none until its pixels are averaged.
    network = weights(CifarResNet(depth=8, width=8, shortcut="B"), (32, 32, 3))
    found = operators(export.as_onnx(network))
    assert (found["Transpose"], found["Conv"]) == (1, 1 + 6 + 2)


def test_a_dilated_strided_grouped_convolution_and_its_kernel_by_hand() -> None:
    class One(nn.Module):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            kwargs: Any = {"strides": (2, 1), "kernel_dilation": (1, 2), "padding": ((1, 0), (2, 3))}
            x = nn.Conv(6, (3, 2), feature_group_count=3, name="conv", **kwargs)(images)
            return x.reshape(x.shape[0], -1)

    network, pixels = weights(One(), (8, 9, 3)), images((8, 9, 3))
    content = export.as_onnx(network)
    check(content, fast(network.logits)(network.variables, pixels), pixels)
    graph = onnx.load_from_string(content).graph
    (conv,) = [node for node in graph.node if node.op_type == "Conv"]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in conv.attribute}
    assert attributes == {
        "kernel_shape": [3, 2], "strides": [2, 1], "dilations": [1, 2], "group": 3, "pads": [1, 2, 0, 3],
    }  # fmt: skip
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    kernel = np.transpose(network.variables["params"]["conv"]["kernel"], (3, 2, 0, 1))  # ONNX: [O, C / groups, h, w]
    np.testing.assert_array_equal(constants[conv.input[1]], kernel)


def test_recomputed_blocks_and_narrow_dtypes_are_written_too() -> None:
    plain, pixels = weights(ConvNeXt(stage_sizes=(1, 1), width=8), (32, 32, 3)), images((32, 32, 3))
    expected = fast(plain.logits)(plain.variables, pixels)
    for fields in ({"remat": True}, {"dtype": "bfloat16"}):
        network = weights(ConvNeXt(stage_sizes=(1, 1), width=8, **fields), (32, 32, 3))
        check(export.as_onnx(network), expected, pixels)


def test_norms_that_the_field_does_not_rule_are_written_unfolded() -> None:
    class Own(Model):
        @nn.compact
        def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
            x = nn.BatchNorm(use_running_average=not train, name="norm")(nn.Conv(4, (3, 3), name="conv")(images))
            return nn.Dense(10, name="head")(nn.relu(x).mean((1, 2)))

    network, pixels = weights(Own(), (8, 8, 3)), images((8, 8, 3))
    check(export.as_onnx(network), fast(network.logits)(network.variables, pixels), pixels)


def attention(x: jax.Array) -> jax.Array:
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    return nn.softmax(jnp.einsum("nic,njc->nij", tokens, tokens) / 9) @ tokens


USED: dict[str, Callable[[jax.Array], jax.Array]] = {
    "leaky relu": nn.leaky_relu,
    "elu": nn.elu,
    "softplus": nn.softplus,
    "gelu by tanh": nn.gelu,
    "relu6": nn.relu6,
    "bounds": lambda x: jnp.clip(x, -0.5, 0.5) + jnp.minimum(0.3, x) * jnp.maximum(-0.2, x),
    "clamp": lambda x: jax.lax.clamp(-0.5, x, 0.25),
    "maximum": lambda x: jnp.maximum(x, x[..., ::-1]),
    "powers": lambda x: x**3 - jnp.sign(x) * jnp.sqrt(jnp.abs(x)),
    "logarithms": lambda x: jnp.log1p(jnp.abs(x)) * jnp.expm1(x),
    "where": lambda x: jnp.where((x > 0) & (x != 1), jnp.exp(-x), jnp.sin(x)),
    "whole numbers": lambda x: (-(9 * x).astype(jnp.int32) + (x > 0)).astype(jnp.float32),
    "variance": lambda x: x.var((1, 2)),
    "reductions": lambda x: x.max((1, 3)) + x.min((1, -1)) + x.prod((2, 3)),
    "mean of rows": lambda x: x.mean(1),
    "max pool": lambda x: nn.max_pool(x, (3, 2), (2, 1), "SAME"),
    "average of pixels inside": lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME", count_include_pad=False),
    "average with padding": lambda x: nn.avg_pool(x, (3, 3), (2, 2), ((1, 1), (2, 0))),
    "slices and a position": lambda x: x[:, 1:5, ::2, 0],
    "two positions": lambda x: x[:, 3, 2],
    "steps": lambda x: x[:, ::3, ::2],
    "steps back": lambda x: x[:, ::-2, 4:],
    "positions in a list": lambda x: x[:, jnp.array([5, 0, 0, 3])],
    "positions going back": lambda x: x[:, jnp.array([4, 2, 0])],
    "a grid of positions": lambda x: jnp.moveaxis(x[:, jnp.array([[4]]), :, jnp.array([[2, 0]])], 2, 0),
    "positions, a new axis, a position": lambda x: jnp.swapaxes(x[:, :, jnp.array([1, 4]), None, 1], 0, 1),
    "roll": lambda x: jnp.roll(x, 2, 1),
    "repeat": lambda x: jnp.repeat(x, 2, axis=2),
    "flip": lambda x: jnp.flip(x, (1, 3)),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 1)), constant_values=7),
    "split": lambda x: jnp.concatenate(jnp.split(x, [2, 3], 2)[::-1], 2),
    "stack": lambda x: jnp.stack((x, x * x), 1),
    "shuffle": lambda x: jnp.swapaxes(x.reshape(-1, 6, 3, 2, 3), 2, 3),
    "resize": lambda x: jax.image.resize(x, (x.shape[0], 9, 4, 3), "bilinear"),
    "attention": attention,
    "the same for every image": lambda x: jnp.concatenate(
        (x, jnp.broadcast_to(jnp.arange(2.0), (*x.shape[:3], 2))), -1
    ),
}


@pytest.mark.parametrize("name", USED)
def test_what_users_networks_compute_comes_out_the_same(name: str) -> None:
    """Once on the images as they come, once on the output of a convolution, which ONNX has with channels first."""
    pixels = images((6, 6, 3))
    kernel = jax.random.normal(KEY, (3, 3, 3, 3)) / 5

    def whole(kernel: Any, pixels: jax.Array) -> jax.Array:
        x = pixels.astype(jnp.float32) / 128 - 1
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.concatenate([USED[name](z).reshape(x.shape[0], -1) for z in (x, y)], -1)

    check(to_onnx(whole, kernel, (6, 6, 3), {}), fast(whole)(kernel, pixels), pixels)


@pytest.mark.parametrize(("function", "name"), [
    (lambda x: jnp.sort(x, 1), "sort"), (lambda x: jnp.cumsum(x, 1), "cumsum"),
    (lambda x: x.at[:, 0].set(0), "scatter"), (lambda x: x.astype(jnp.bfloat16), "convert_element_type"),
    (lambda x: jax.lax.conv_transpose(x, jnp.ones((3, 3, 3, 3)), (2, 2), "SAME"), "conv_general_dilated"),
    (lambda x: x[::-1], "dim_as_value"), (lambda x: jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1), "argmax"),
])  # fmt: skip
def test_what_is_not_written_is_named_with_its_module(function: Any, name: str) -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            return function(x).astype(jnp.float32).reshape(x.shape[0], -1)

    with pytest.raises(UsageError, match=rf"the network's {name} in .*Net.* cannot be written as ONNX.*stablehlo"):
        export.as_onnx(Weights(cast(Model, Net()), (6, 6, 3), ("a",), NORMALISE, Crop(), {}, {}))


@pytest.mark.parametrize("write", [export.as_onnx, export.as_stablehlo])
def test_a_network_that_takes_only_some_batches_is_told_with_its_line(write: Callable[[Weights], bytes]) -> None:
    class Few(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            return x.sum((1, 2)) if x.shape[0] < 100 else x.max((1, 2))

    with pytest.raises(UsageError, match=r"cannot be built for images of batch x 6 x 6 x 3: .*test_onnx\.py:\d+: "):
        write(Weights(cast(Model, Few()), (6, 6, 3), ("a",), NORMALISE, Crop(), {}, {}))


def test_what_one_file_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LIMIT", 10_000)
    with pytest.raises(UsageError, match=r"constants have 0\.0 GB: more than one file of ONNX holds"):
        export.as_onnx(weights(CifarResNet(depth=8, width=8), (16, 16, 3)))


def test_what_the_file_says_of_itself() -> None:
    content = export.as_onnx(weights(CifarResNet(depth=8, width=8), (16, 16, 3)))
    model = onnx.load_from_string(content)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found["convjax"] == convjax.__version__
    assert json.loads(found["class_names"]) == [f"class {i}" for i in range(10)]
    assert json.loads(found["model"])["depth"] == 8
    assert json.loads(found["normalise"]) == {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
    assert found["input"].startswith("images: uint8 [batch, 16, 16, 3], red, green, blue from 0 to 255")
    ((given,), (taken,)) = (model.graph.output, model.graph.input)
    for value, kind, shape in ((taken, "UINT8", ["batch", 16, 16, 3]), (given, "FLOAT", ["batch", 10])):
        tensor = value.type.tensor_type
        assert onnx.TensorProto.DataType.Name(tensor.elem_type) == kind
        assert [axis.dim_param or axis.dim_value for axis in tensor.shape.dim] == shape
