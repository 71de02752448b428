from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import KEY, leaves, one_of_each_family, variables

from convjax.errors import UsageError
from convjax.layers import Layers
from convjax.models import CifarResNet, create
from convjax.models.resnet import BasicBlock, BottleneckBlock

FAMILIES = list(one_of_each_family())


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_imagenet_stem_refuses_small_images_unless_allowed(name: str) -> None:
    with pytest.raises(ValueError, match=r"32 x 32 .* set model\.stem to cifar"):
        variables(create(name), 32, 32, 3)
    # densenet121 halves the image five times: 32 pixels are its least.
    assert "params" in variables(create(name, allow_small_images=True), 32, 32, 3)
    assert "params" in variables(create(name, stem="cifar"), 32, 32, 3)


@pytest.mark.parametrize("depth", [2, 18, 21, 51])
def test_cifar_resnet_refuses_depths_other_than_6n_plus_2(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"model\.depth is {depth}: it must be 6n \+ 2"):
        variables(CifarResNet(depth=depth), 32, 32, 3)


def test_cifar_resnet_has_as_many_weight_layers_as_its_depth() -> None:
    for depth in (8, 20, 56):
        kernels = [path for path in leaves(variables(CifarResNet(depth=depth), 32, 32, 3)) if path.endswith("kernel")]
        assert len(kernels) == depth


def test_plain_network_refuses_drop_path() -> None:
    with pytest.raises(ValueError, match=r"model\.drop_path must be 0"):
        variables(CifarResNet(shortcut="none", drop_path=0.1), 32, 32, 3)


def test_create_names_the_nearest_model_and_the_nearest_field() -> None:
    with pytest.raises(UsageError, match=r"no model 'resnet2O': did you mean .*resnet20"):
        create("resnet2O")
    with pytest.raises(UsageError, match=r"'resnet20' has no field 'widht': did you mean width\?"):
        create("resnet20", widht=8)
    with pytest.raises(UsageError, match="has no field 'parent'"):
        create("resnet20", parent=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_norm_reaches_every_place(family: str) -> None:
    def paths(norm: str) -> dict[str, Any]:
        return leaves(variables(one_of_each_family(norm=norm)[family], 32, 32, 3, train=True))

    batch, group, layer, none = map(paths, ("batch", "group", "layer", "none"))
    norms = [path.removesuffix("/scale") for path in batch if path.endswith("/scale")]
    assert norms
    assert [path for path in none if path.endswith("/scale") or path.startswith("batch_stats")] == []
    assert [path for path in {**group, **layer} if path.startswith("batch_stats")] == []
    # In a norm's place stands another one, or a bias.
    for norm in norms:
        assert {f"{norm}/scale", f"{norm}/bias"} <= layer.keys()
        assert {f"{norm}/group/scale", f"{norm}/group/bias"} <= group.keys()
        assert f"{norm}/bias" in none
    kernels = {path for path in batch if path.endswith("kernel")}
    assert all({path for path in tree if path.endswith("kernel")} == kernels for tree in (group, layer, none))


@pytest.mark.parametrize("family", FAMILIES)
def test_activation_reaches_every_place(family: str) -> None:
    def program(activation: str) -> str:
        model = one_of_each_family(activation=activation)[family]
        v = variables(model, 32, 32, 3)
        batch = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.float32)
        return str(jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(v, batch))

    tanh = program("tanh")
    assert "relu" in program("relu")
    assert "relu" not in tanh
    assert tanh.count(" tanh ") == activations(family)


def activations(family: str) -> int:
    """Activations in the small networks, counted in their papers' figures."""
    return {
        "mlp": 1,
        "lenet5": 4,
        # A stem, and two after the convolutions of each of three blocks.
        "cifar A": 7,
        "cifar B": 7,
        "plain": 7,
        # A stem and two blocks of two; of three.
        "basic": 5,
        "bottleneck": 7,
        # A stem, two for each of four layers, a transition and the end; without stem norm and bottleneck one a layer.
        "densenet": 11,
        "densenet without B": 6,
    }[family]


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize("stride", [1, 2])
def test_zero_init_makes_a_block_start_as_its_shortcut(
    block: type[BasicBlock] | type[BottleneckBlock], stride: int
) -> None:
    layers = Layers.build(norm="batch", activation="relu", dtype="float32", train=True)
    x = jax.random.normal(KEY, (2, 5, 5, 8))
    features = 8 * stride // block.expansion
    fields: dict[str, Any] = {"stride": stride, "shortcut": "A", "drop_path": 0.0, "train": True}
    y, started = block(layers, features, zero_init=True, **fields).init_with_output(KEY, x)
    # Option A: every other pixel, and zeros in the channels that are new.
    expected = np.pad(np.maximum(x[:, ::stride, ::stride], 0), ((0, 0),) * 3 + ((0, 8 * stride - 8),))
    np.testing.assert_array_equal(y, expected)
    # The branch is alive, only silenced: with scales of one it changes the output.
    params = jax.tree.map(jnp.array, started["params"])
    params["norm_last"]["scale"] = jnp.ones_like(params["norm_last"]["scale"])
    z, _ = block(layers, features, zero_init=True, **fields).apply(
        {**started, "params": params}, x, mutable=["batch_stats"]
    )
    assert np.abs(z - expected).max() > 0.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "none", "zero_init": True}, r"model\.zero_init needs a norm"),
        ({"shortcut": "none", "drop_path": 0.1}, r"model\.drop_path must be 0"),
    ],
)
def test_fields_that_would_silently_do_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        variables(CifarResNet(depth=8, width=4, **fields), 8, 8, 1)
